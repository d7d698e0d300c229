//! Rules that every rendered object and every schema keeps. Each answers a list of faults in words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Verbs by `group/resource`.
pub(crate) type Rights = BTreeMap<String, BTreeSet<String>>;

/// Kind and name, for messages.
pub(crate) fn title(object: &Value) -> String {
    format!(
        "{} {}",
        object["kind"].as_str().unwrap_or("?"),
        object["metadata"]["name"].as_str().unwrap_or("?")
    )
}

/// The pod template of a Deployment, Job or CronJob.
pub(crate) fn pod_template(object: &Value) -> Option<&Value> {
    match object["kind"].as_str() {
        Some("Deployment" | "Job") => Some(&object["spec"]["template"]),
        Some("CronJob") => Some(&object["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// What is missing of the restricted Pod Security Standard, and of our own rules for pods.
pub(crate) fn pod_faults(object: &Value, template: &Value) -> Vec<String> {
    let spec = &template["spec"];
    let mut faults = Vec::new();
    let mut demand = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    demand(spec["securityContext"]["runAsNonRoot"] == true, "pod: runAsNonRoot is not true");
    demand(spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "pod: seccompProfile");
    demand(
        spec["automountServiceAccountToken"].is_boolean(),
        "pod: automountServiceAccountToken is not decided",
    );
    for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
        demand(spec.get(field).is_none(), &format!("pod: {field} is set"));
    }
    for volume in list(&spec["volumes"]) {
        let plain =
            ["configMap", "secret", "projected", "emptyDir"].iter().any(|kind| volume.get(kind).is_some());
        demand(plain, &format!("volume {} is of a forbidden type", volume["name"]));
    }
    let containers: Vec<&Value> =
        list(&spec["containers"]).iter().chain(list(&spec["initContainers"])).collect();
    demand(!containers.is_empty(), "pod: no containers");
    for container in containers {
        faults.extend(container_faults(container, object["kind"] == "Deployment"));
    }
    faults
}

fn container_faults(container: &Value, long_running: bool) -> Vec<String> {
    let security = &container["securityContext"];
    let resources = &container["resources"];
    let image = container["image"].as_str().unwrap_or_default();
    let mut rules = vec![
        (security["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation is not false"),
        (security["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem is not true"),
        (security["capabilities"]["drop"] == serde_json::json!(["ALL"]), "capabilities are not all dropped"),
        (security["capabilities"].get("add").is_none(), "capabilities are added"),
        (security.get("privileged").is_none(), "privileged is set"),
        (security["runAsUser"] != 0, "runs as root"),
        (resources["requests"]["cpu"].is_string(), "no CPU request"),
        (resources["requests"]["memory"].is_string(), "no memory request"),
        (resources["limits"]["memory"].is_string(), "no memory limit"),
        (resources["limits"].get("cpu").is_none(), "a CPU limit throttles renewals and commits"),
        (
            image.contains('@') || image.rsplit('/').next().is_some_and(|name| name.contains(':')),
            "image without a version",
        ),
        (!image.ends_with(":latest"), "image is latest"),
    ];
    if long_running {
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            rules.push((container[probe]["httpGet"]["port"] == "http", probe));
        }
        rules.push((
            list(&container["ports"]).iter().any(|port| port["name"] == "http"),
            "no port named http",
        ));
    }
    let secret_in_environment = list(&container["env"]).iter().any(|variable| {
        let key = variable["valueFrom"]["secretKeyRef"]["key"].as_str().unwrap_or_default();
        !key.is_empty() && key != "username"
    });
    rules.push((!secret_in_environment, "a secret is given in the environment; mount it as a file"));
    let name = &container["name"];
    rules
        .into_iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, fault)| format!("container {name}: {fault}"))
        .collect()
}

/// Wildcards and rights beyond what a role of ours may ever hold.
pub(crate) fn rbac_faults(object: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for rule in list(&object["rules"]) {
        for field in ["apiGroups", "resources", "verbs", "resourceNames", "nonResourceURLs"] {
            if list(&rule[field]).iter().any(|value| value.as_str().is_some_and(|text| text.contains('*'))) {
                faults.push(format!("wildcard in {field}: {rule}"));
            }
        }
        let names = |field: &str, wanted: &str| list(&rule[field]).iter().any(|value| value == wanted);
        if names("resources", "secrets")
            && (rule["verbs"] != serde_json::json!(["get"]) || list(&rule["resourceNames"]).is_empty())
        {
            faults.push(format!("secrets may only be got, by name: {rule}"));
        }
        for verb in ["escalate", "bind", "impersonate", "deletecollection"] {
            if names("verbs", verb) {
                faults.push(format!("verb {verb}: {rule}"));
            }
        }
    }
    faults
}

/// The rights in the table of `operator/RBAC.md`: scope, group, resource, verbs, purpose.
pub(crate) fn documented_rights(page: &str) -> Rights {
    let mut rights = Rights::new();
    for line in page.lines() {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let [_, _, group, resource, verbs, _, _] = cells.as_slice() else { continue };
        if group == "API group" || group.starts_with('-') {
            continue;
        }
        let group = if group == "core" { "" } else { group };
        let verbs = verbs.split(',').map(|verb| verb.trim().to_owned());
        rights.entry(format!("{group}/{resource}")).or_default().extend(verbs);
    }
    rights
}

/// The rights that the rendered roles give.
pub(crate) fn granted_rights(objects: &[Value]) -> Rights {
    let texts =
        |value: &Value| list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let mut rights = Rights::new();
    for rule in objects.iter().flat_map(|object| list(&object["rules"])) {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                rights.entry(format!("{group}/{resource}")).or_default().extend(texts(&rule["verbs"]));
            }
        }
    }
    rights
}

/// Services, budgets and policies whose selector finds no rendered pod.
pub(crate) fn selector_faults(objects: &[Value]) -> Vec<String> {
    let pods: Vec<&Map<String, Value>> = objects
        .iter()
        .filter_map(pod_template)
        .filter_map(|pod| pod["metadata"]["labels"].as_object())
        .collect();
    let found = |selector: &Value| {
        let wanted = selector.as_object().filter(|labels| !labels.is_empty());
        wanted.is_some_and(|wanted| {
            pods.iter().any(|pod| wanted.iter().all(|(key, value)| pod.get(key) == Some(value)))
        })
    };
    let selector_of = |object: &Value| match object["kind"].as_str() {
        Some("Service") => Some(object["spec"]["selector"].clone()),
        Some("Deployment" | "PodDisruptionBudget" | "ServiceMonitor" | "PodMonitor") => {
            Some(object["spec"]["selector"]["matchLabels"].clone())
        }
        Some("NetworkPolicy") => Some(object["spec"]["podSelector"]["matchLabels"].clone()),
        _ => None,
    };
    objects
        .iter()
        .filter(|object| selector_of(object).is_some_and(|selector| !found(&selector)))
        .map(|object| format!("{} selects no pod of this chart", title(object)))
        .collect()
}

/// The alerts of all PrometheusRules.
pub(crate) fn alerts(objects: &[Value]) -> Vec<&Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == "PrometheusRule")
        .flat_map(|object| list(&object["spec"]["groups"]))
        .flat_map(|group| list(&group["rules"]))
        .collect()
}

/// Keys without a description, and objects that accept unknown keys. Two values are open on purpose: `global` belongs
/// to Helm, and `tradingRegion.spec` is checked by the API server.
pub(crate) fn schema_faults(schema: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    schema_walk(schema, "values", &mut faults);
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        schema_walk(definition, name, &mut faults);
    }
    faults
}

fn schema_walk(schema: &Value, at: &str, faults: &mut Vec<String>) {
    const OPEN: [&str; 2] = ["values.global", "values.tradingRegion.spec"];
    if schema["type"] == "object" && !OPEN.contains(&at) {
        let additional = &schema["additionalProperties"];
        let typed = additional["type"] == "string" && schema.get("properties").is_none();
        if !(*additional == false || typed) {
            faults.push(format!("{at} accepts unknown keys"));
        }
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        if property["description"].as_str().is_none_or(|text| text.len() < 8) {
            faults.push(format!("{at} is not described"));
        }
        schema_walk(property, &at, faults);
    }
    if let Some(items) = schema.get("items") {
        schema_walk(items, &format!("{at}[]"), faults);
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
