//! Commands as they can be copied: with the object that is meant and the options by which its clusters were found.

use crate::view::View;

/// How each command of this program begins in a text.
const PROGRAM: &str = "kubectl region ";
/// Commands about an object.
const OF_AN_OBJECT: [&str; 5] = ["status", "plan", "switch", "abort", "history"];
/// Those of them that name a region first.
const OF_A_REGION: [&str; 2] = ["plan", "switch"];

/// Which object is meant, and how its clusters are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    namespace: String,
    name: String,
    way: String,
}

impl Place {
    /// The object of a view.
    pub(crate) fn of(view: &View) -> Self {
        Self { namespace: view.namespace.clone(), name: view.name.clone(), way: view.way.clone() }
    }

    /// The text, in which each command about an object, such as `kubectl region status --watch`, names this one.
    pub(crate) fn spell(&self, text: &str) -> String {
        let mut parts = text.split(PROGRAM);
        let mut spelled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let verb = word(part);
            spelled += PROGRAM;
            if !OF_AN_OBJECT.contains(&verb) {
                spelled += part;
                continue;
            }
            let mut end = verb.len();
            if OF_A_REGION.contains(&verb) {
                let region =
                    part[end..].strip_prefix(' ').map(word).filter(|region| !region.starts_with('-'));
                end += region.filter(|region| !region.is_empty()).map_or(0, |region| region.len() + 1);
            }
            let Self { namespace, name, way } = self;
            spelled += &format!("{} -n {namespace} {name}{way}{}", &part[..end], &part[end..]);
        }
        spelled
    }
}

/// The word that a text begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
    &text[..end]
}

/// A word as a shell takes it for one.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(way: &str, text: &str) -> String {
        let place = Place { namespace: "trading".into(), name: "trade-matching".into(), way: way.into() };
        place.spell(text)
    }

    #[test]
    fn each_command_about_an_object_names_it_and_the_way_to_its_clusters() {
        assert_eq!(
            spelled("", "kubectl region status --watch, or kubectl region abort"),
            "kubectl region status -n trading trade-matching --watch, or kubectl region abort -n trading trade-matching"
        );
        assert_eq!(
            spelled(" --contexts a,b", "then `kubectl region plan REGION` and switch"),
            "then `kubectl region plan REGION -n trading trade-matching --contexts a,b` and switch"
        );
        assert_eq!(
            spelled("", "kubectl region switch us-west-2 --reason WHY"),
            "kubectl region switch us-west-2 -n trading trade-matching --reason WHY"
        );
    }

    #[test]
    fn what_is_no_command_about_an_object_stays_as_it_is() {
        for text in ["kubectl region explain TR-1001", "wait, then try again", "kubectl get pods", ""] {
            assert_eq!(spelled(" --contexts a,b", text), text);
        }
    }

    #[test]
    fn a_spelled_command_is_one_that_the_program_takes() {
        use clap::Parser as _;
        for text in
            ["kubectl region status --watch", "kubectl region plan us-west-2", "kubectl region history"]
        {
            let command = spelled(" --contexts a,b", text);
            crate::Cli::try_parse_from(command.split(' ').skip(1))
                .unwrap_or_else(|why| panic!("{command}: {why}"));
        }
    }

    #[test]
    fn words_that_a_shell_would_split_are_quoted() {
        assert_eq!(quoted("arn:aws:eks:us-east-1:1:cluster/a"), "arn:aws:eks:us-east-1:1:cluster/a");
        assert_eq!(quoted("my cluster"), "'my cluster'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
