use std::{collections::HashSet, env, fs};

use reqwest::{StatusCode, header};
use serde_json::Value;

use crate::running::{self, Running};

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/openapi-receiver.json");

/// The description is what clients are written to: a change shows in the diff of the file. After a wanted one, run
/// `UPDATE_SNAPSHOTS=1 cargo nextest run -p liotbchain-server describes_the_same_routes_as_before`.
#[tokio::test]
async fn describes_the_same_routes_as_before() {
    let receiver = Running::start().await;
    let mut description = receiver.get_json("/openapi.json").await;
    // It would change with every release.
    description["info"]["version"] = "…".into();
    let text = serde_json::to_string_pretty(&description).unwrap() + "\n";
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(SNAPSHOT, &text).unwrap();
    }
    let before: Value = serde_json::from_str(&fs::read_to_string(SNAPSHOT).unwrap()).unwrap();
    assert!(
        description == before,
        "/openapi.json has changed; see the comment above this test. It is now:\n{text}"
    );
}

#[tokio::test]
async fn the_example_is_taken_as_it_stands_and_as_a_browser_writes_it() {
    let receiver = Running::start().await;
    let description = receiver.get_json("/openapi.json").await;
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."));
    let content =
        &description["paths"]["/receive_data"]["post"]["requestBody"]["content"]["application/json"];
    let example = &content["example"];
    for text in [serde_json::to_string(example).unwrap(), serde_json::to_string_pretty(example).unwrap()] {
        let response = receiver.post(text.clone()).send().await.unwrap();
        assert_eq!(response.status(), 200, "{text}");
        assert_eq!(running::json(response).await["items"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn every_route_says_what_it_answers_and_writes_may_carry_a_token() {
    let receiver = Running::start().await;
    let description = receiver.get_json("/openapi.json").await;
    assert_eq!(description["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let paths = description["paths"].as_object().unwrap();
    let expected = [
        "/checkpoint",
        "/get_chain",
        "/healthz",
        "/metrics",
        "/readyz",
        "/receive_data",
        "/tile/{level}/{index}",
        "/v1/blocks",
        "/v1/blocks/{block}",
        "/v1/events",
        "/v1/export",
        "/v1/keys",
        "/v1/keys/{key_id}",
        "/v1/keys/{key_id}/transactions",
        "/v1/proofs/consistency",
        "/v1/proofs/inclusion",
        "/v1/status",
        "/v1/transactions",
        "/v1/transactions/{id}",
        "/v1/transactions/{id}/receipt",
        "/v1/transactions/{id}/tlog-proof",
        "/v1/validation",
        "/validate",
    ];
    let mut names: Vec<_> = paths.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, expected);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.keys().any(|status| status.starts_with('2')), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert_eq!(operation["security"].is_array(), method != "get", "{method} {path}");
        }
    }
}

/// Programs are made of these names.
#[tokio::test]
async fn every_route_of_v1_has_a_name_of_its_own_and_says_what_can_go_wrong() {
    let receiver = Running::start().await;
    let description = receiver.get_json("/openapi.json").await;
    let paths = description["paths"].as_object().unwrap();
    let mut names = HashSet::new();
    for (path, methods) in paths.iter().filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            let answers = operation["responses"].as_object().unwrap();
            for status in ["403", "421", "500", "503"] {
                assert!(answers.contains_key(status), "{method} {path} {status}");
            }
            assert_eq!(answers.contains_key("401"), method != "get", "{method} {path}");
            for (status, answer) in answers.iter().filter(|(status, _)| status.as_str() >= "400") {
                let schema = &answer["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
            }
        }
    }
    assert!(names.contains("post_transactions"), "{names:?}");
}

/// In the order of the page, so that what is asked for was posted before.
#[tokio::test]
async fn the_examples_of_v1_work() {
    let receiver = Running::start().await;
    let description = receiver.get_json("/openapi.json").await;
    let paths = &description["paths"];
    let post = &paths["/v1/transactions"]["post"]["requestBody"]["content"]["application/json"]["example"];
    let response = receiver.post_v1(post.to_string()).send().await.unwrap();
    assert_eq!(response.status(), 201);
    for path in ["/v1/blocks/{block}", "/v1/keys/{key_id}", "/v1/transactions/{id}"] {
        let parameter = &paths[path]["get"]["parameters"][0];
        let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
        let example = parameter["example"].as_str().unwrap();
        receiver.get_json(&path.replace(&name, example)).await;
    }
}

#[tokio::test]
async fn the_page_to_try_them_out_comes_from_the_binary() {
    let receiver = Running::start().await;
    let response = receiver.get("/apidocs").await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[header::LOCATION], "/apidocs/");
    let page = receiver.get("/apidocs/").await.text().await.unwrap();
    assert!(page.contains("swagger-ui"), "{page}");
    assert!(!page.contains("://"), "nothing is fetched from elsewhere: {page}");
    assert_eq!(receiver.get("/apidocs/swagger-ui-bundle.js").await.status(), 200);
}
