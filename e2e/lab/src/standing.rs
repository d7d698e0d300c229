//! Where each application is, by what the simulated AWS says of it.

use std::fmt;

use serde_json::Value;

use crate::application::Application;
use crate::control;
use crate::error::{Error, Result};
use crate::layout::Lab;
use crate::region::Region;
use crate::simulator::{AwsNames, CONTROLS};

/// Where one application is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which application.
    pub application: Application,
    /// The regions whose control of a kind is On.
    pub controls: Vec<(&'static str, Vec<Region>)>,
    /// The region that writes the database, as the RDS API would tell.
    pub writer: String,
    /// The state of its global cluster, `available` where nothing moves.
    pub database: String,
    /// What its broker name answers.
    pub broker: String,
}

/// Asks the simulator about all applications.
///
/// # Errors
/// When the simulator does not answer, or does not know an application.
pub fn standings(lab: &Lab) -> Result<Vec<Standing>> {
    let answer = control::request(lab, "GET", "/state", "")?;
    let state: Value = serde_json::from_str(&answer).unwrap_or_default();
    AwsNames::all(lab)
        .into_values()
        .map(|names| {
            standing(&state, &names).ok_or_else(|| {
                Error::Request(format!(
                    "the AWS simulator does not know {}; `cargo xtask lab down` and `up` make the lab anew",
                    names.application
                ))
            })
        })
        .collect()
}

fn standing(state: &Value, names: &AwsNames) -> Option<Standing> {
    let find = |list: &str, key: &str, wanted: &str| {
        state[list].as_array()?.iter().find(|entry| entry[key] == wanted).cloned()
    };
    let is_on = |kind: &str, region: Region| {
        let control = find("controls", "name", &names.control_name(kind, region))?;
        Some(control["accepted"] == "On")
    };
    let on = |kind: &'static str| {
        let states = Region::ALL.map(|region| Some((region, is_on(kind, region)?)));
        let states = states.into_iter().collect::<Option<Vec<_>>>()?;
        Some((kind, states.into_iter().filter(|(_, on)| *on).map(|(region, _)| region).collect()))
    };
    let cluster = find("global_clusters", "id", &names.global_cluster)?;
    Some(Standing {
        application: names.application,
        controls: CONTROLS.into_iter().map(on).collect::<Option<_>>()?,
        writer: cluster["writer_region"].as_str()?.to_owned(),
        database: cluster["status"].as_str()?.to_owned(),
        broker: state["dns"][&names.broker_name].as_str()?.to_owned(),
    })
}

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:15}", self.application)?;
        for (kind, regions) in &self.controls {
            let names: Vec<&str> = regions.iter().map(|region| region.name()).collect();
            let regions = if names.is_empty() { "nowhere".to_owned() } else { names.join("+") };
            write!(formatter, " {kind} {regions},")?;
        }
        write!(formatter, " database {} ({}), broker name {}", self.writer, self.database, self.broker)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::address::Plan;

    #[test]
    fn an_application_stands_where_its_own_controls_and_cluster_say() {
        let lab = Lab::new(Plan::new("tr", 0).unwrap());
        let control = |name: &str, state: &str| json!({"name": name, "accepted": state});
        let controls: Vec<Value> = Application::ALL
            .into_iter()
            .zip([("On", "Off"), ("Off", "On")])
            .flat_map(|(application, (east, west))| {
                let names = AwsNames::new(&lab, application);
                CONTROLS.into_iter().flat_map(move |kind| {
                    let name = |region| names.control_name(kind, region);
                    let west = if kind == "ingress" { "Off" } else { west };
                    [control(&name(Region::UsEast1), east), control(&name(Region::UsWest2), west)]
                })
            })
            .collect();
        let cluster =
            |id: &str, region: &str| json!({"id": id, "writer_region": region, "status": "available"});
        let mut state = json!({
            "controls": controls,
            "global_clusters": [
                cluster("trade-matching-global", "us-east-1"), cluster("settlement-global", "us-west-2"),
            ],
            "dns": {"mq.trade-matching.trading.lab": "10.99.1.2", "mq.settlement.trading.lab": "10.99.2.2"},
        });
        let text = |state: &Value, application| {
            standing(state, &AwsNames::new(&lab, application)).map(|standing| standing.to_string())
        };
        let settlement = "settlement      ingress nowhere, intake us-west-2, app us-west-2, \
                          database us-west-2 (available), broker name 10.99.2.2";
        assert_eq!(text(&state, Application::Settlement).as_deref(), Some(settlement));
        let matching = text(&state, Application::TradeMatching).unwrap();
        assert!(matching.contains("app us-east-1, database us-east-1"), "{matching}");
        state["global_clusters"].as_array_mut().unwrap().pop();
        assert_eq!(text(&state, Application::Settlement), None, "an unknown cluster is no standing");
    }
}
