//! The policies: valid, and their expressions say yes and no where they must.

use std::sync::Arc;

use cel::{Context, Env, extensions};
use serde_json::{Map, Value, json};

use super::support::{read, validate, yaml};

/// Versions in which a ValidatingAdmissionPolicy is stable.
const VERSIONS: [&str; 3] = ["1.30", "1.33", "1.37"];

fn admission() -> Vec<Value> {
    yaml(&read("deploy/policies/validating-admission-policy.yaml"))
}

#[test]
fn the_admission_policy_is_valid() {
    let pairs: Vec<_> = VERSIONS.iter().map(|version| (admission(), *version)).collect();
    assert_eq!(validate(&pairs), vec![(vec![], vec![]); VERSIONS.len()]);
}

#[test]
fn nothing_is_refused_until_a_namespace_asks_for_it() {
    let documents = admission();
    let bindings: Vec<&Value> =
        documents.iter().filter(|document| document["kind"] == "ValidatingAdmissionPolicyBinding").collect();
    let [audit, enforce] = bindings[..] else { panic!("there are two bindings: {bindings:?}") };
    assert_eq!(audit["spec"]["validationActions"], json!(["Warn", "Audit"]));
    assert_eq!(enforce["spec"]["validationActions"], json!(["Deny", "Audit"]));
    assert_eq!(
        enforce["spec"]["matchResources"]["namespaceSelector"],
        json!({"matchLabels": {"rosentry.io/seal": "enforce"}})
    );
    for binding in bindings {
        assert_eq!(binding["spec"]["policyName"], documents[0]["metadata"]["name"]);
    }
}

#[test]
fn a_read_only_root_is_admitted_and_a_writable_one_is_not() {
    assert_eq!(
        refusals(&pod(json!([container("app", json!({"readOnlyRootFilesystem": true}))]))),
        Vec::<String>::new()
    );
    for context in [json!({"readOnlyRootFilesystem": false}), json!({}), Value::Null] {
        let refused = refusals(&pod(json!([container("app", context.clone())])));
        assert_eq!(refused.len(), 1, "{context}");
        assert!(refused[0].starts_with("the root of app is writable"), "{refused:?}");
    }
}

#[test]
fn init_containers_are_asked_too_and_each_is_named() {
    let mut pod = pod(json!([container("app", Value::Null)]));
    pod["spec"]["initContainers"] = json!([container("prepare", Value::Null)]);
    assert!(refusals(&pod)[0].starts_with("the root of app, prepare is writable"), "{:?}", refusals(&pod));
}

#[test]
fn owners_of_pods_are_asked_for_what_they_will_make() {
    let template = json!({"metadata": {}, "spec": pod(json!([container("app", Value::Null)]))["spec"]});
    for (kind, spec) in [
        ("Deployment", json!({"template": template})),
        ("Job", json!({"template": template})),
        ("CronJob", json!({"jobTemplate": {"spec": {"template": template}}})),
    ] {
        assert_eq!(refusals(&json!({"kind": kind, "spec": spec})).len(), 1, "{kind}");
    }
}

#[test]
fn an_exception_is_for_the_containers_that_it_names_and_says_why() {
    let mut pod =
        pod(json!([container("app", json!({"readOnlyRootFilesystem": true})), container("importer", Value::Null)]));
    pod["metadata"]["annotations"] = json!({"rosentry.io/writable-containers": "importer,report"});
    assert_eq!(refusals(&pod), ["an exception has to say why: annotation rosentry.io/writable-reason"]);
    pod["metadata"]["annotations"]["rosentry.io/writable-reason"] = "unpacks plug-ins at start".into();
    assert_eq!(refusals(&pod), Vec::<String>::new());
    pod["metadata"]["annotations"]["rosentry.io/writable-containers"] = "import".into();
    assert!(refusals(&pod)[0].starts_with("the root of importer is writable"));
}

#[test]
fn windows_knows_no_read_only_root() {
    let mut pod = pod(json!([container("app", Value::Null)]));
    pod["spec"]["os"] = json!({"name": "windows"});
    assert_eq!(refusals(&pod), Vec::<String>::new());
}

#[test]
fn kyvernos_policy_asks_for_the_same() {
    let [policy] = &yaml(&read("deploy/policies/kyverno.yaml"))[..] else { panic!("one policy") };
    assert_eq!(
        (&policy["kind"], &policy["metadata"]["name"]),
        (&json!("ClusterPolicy"), &admission()[0]["metadata"]["name"])
    );
    for rule in policy["spec"]["rules"].as_array().expect("it has rules") {
        assert_eq!(rule["validate"]["failureAction"], "Audit");
        let overrides = &rule["validate"]["failureActionOverrides"];
        assert_eq!(overrides[0]["action"], "Enforce");
        assert_eq!(overrides[0]["namespaceSelector"], json!({"matchLabels": {"rosentry.io/seal": "enforce"}}));
    }
    let text = policy.to_string();
    assert!(text.contains("rosentry.io/writable-containers") && text.contains("rosentry.io/writable-reason"));
}

fn pod(containers: Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": containers}})
}

fn container(name: &str, security_context: Value) -> Value {
    let mut container = json!({"name": name, "image": "web:1"});
    if !security_context.is_null() {
        container["securityContext"] = security_context;
    }
    container
}

/// What the policy says against an object: its messages, as the API server would evaluate them.
fn refusals(object: &Value) -> Vec<String> {
    let policy = &admission()[0]["spec"];
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings).expect("the API server has the strings extension");
    let env = Arc::new(env);
    let mut variables = Map::new();
    let evaluate = |expression: &str, variables: &Map<String, Value>| -> Value {
        let mut context = Context::with_env(Arc::clone(&env));
        context.add_variable("object", object).expect("the object is data");
        context.add_variable("variables", variables).expect("variables are data");
        let program = env.compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let value = program.execute(&context).unwrap_or_else(|error| panic!("{expression}: {error}"));
        value.json().unwrap_or_else(|error| panic!("{expression}: {error:?}"))
    };
    for variable in policy["variables"].as_array().expect("it has variables") {
        let value = evaluate(text(&variable["expression"]), &variables);
        variables.insert(text(&variable["name"]).to_owned(), value);
    }
    let mut refusals = Vec::new();
    for validation in policy["validations"].as_array().expect("it has validations") {
        if evaluate(text(&validation["expression"]), &variables) == json!(true) {
            continue;
        }
        let message = match validation["messageExpression"].as_str() {
            Some(expression) => text(&evaluate(expression, &variables)).to_owned(),
            None => text(&validation["message"]).to_owned(),
        };
        refusals.push(message);
    }
    for annotation in policy["auditAnnotations"].as_array().expect("it has annotations for the audit log") {
        let value = evaluate(text(&annotation["valueExpression"]), &variables);
        assert!(value.is_null() || value.is_string(), "{value}");
    }
    refusals
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}
