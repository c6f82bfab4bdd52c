//! Reading, listing, searching, and the definitions.

use super::{OBJECTS, SOON, batch, cars, get, portal, post, send};
use hubsyncd::sandbox::{Endpoint, Property, Sandbox, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_batch_read_finds_by_id_and_by_unique_value_and_names_what_is_missing() {
    let sandbox = portal().await;
    let id = sandbox.world().create("cars", [("plate", "A"), ("price", "1")]);
    let read = |body: Value| async { post(&sandbox, &format!("{OBJECTS}/cars/batch/read"), body).await };
    let asked = ["plate", "price", "colour", "nonsense"];
    let by_id = read(json!({"properties": asked, "inputs": [{"id": id}]})).await;
    let shown = &by_id.results()[0]["properties"];
    assert_eq!(
        (&shown["plate"], &shown["colour"], shown.get("nonsense")),
        (&json!("A"), &Value::Null, None)
    );
    let by_key =
        read(json!({"idProperty": "plate", "properties": [], "inputs": [{"id": "A"}, {"id": "Z"}]})).await;
    assert_eq!((by_key.status, &by_key.results()[0]["id"]), (207, &json!(id)));
    assert_eq!(by_key.errors()[0]["context"], json!({"ids": ["Z"]}));
    let by_text = read(json!({"idProperty": "note", "inputs": [{"id": "A"}]})).await;
    assert_eq!(by_text.status, 400);
    let many: Vec<Value> = (0..51).map(|id| json!({"id": id.to_string()})).collect();
    let histories = read(json!({"propertiesWithHistory": ["price"], "inputs": many})).await;
    assert!(
        histories.message().contains("property histories is 50"),
        "{}",
        histories.body
    );
}

#[tokio::test]
async fn a_record_that_is_not_there_is_a_404_in_one_of_two_shapes() {
    let sandbox = portal().await;
    let numeric = get(&sandbox, &format!("{OBJECTS}/contacts/42")).await;
    assert_eq!(
        (numeric.status, numeric.message(), numeric.body.get("category")),
        (404, "resource not found", None)
    );
    let other = get(&sandbox, &format!("{OBJECTS}/contacts/x")).await;
    assert_eq!(
        (other.status, other.body["category"].as_str()),
        (404, Some("OBJECT_NOT_FOUND"))
    );
    assert_eq!(
        other.message(),
        "Object not found.  objectId are usually numeric."
    );
    let email = "ada%40example.com";
    sandbox.world().create("contacts", [("email", "ada@example.com")]);
    assert_eq!(
        get(&sandbox, &format!("{OBJECTS}/0-1/{email}?idProperty=email"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_list_pages_in_the_order_of_ids_and_leaves_archived_ones_out() {
    let sandbox = portal().await;
    let ids: Vec<String> = (0..5).map(|_| sandbox.world().create("cars", [])).collect();
    let path = format!("{OBJECTS}/p12345678_cars/{}", ids[2]);
    assert_eq!(
        send(&sandbox, Method::DELETE, &path, "").await.unwrap().status,
        204
    );
    let first = get(&sandbox, &format!("{OBJECTS}/cars?limit=3")).await;
    assert_eq!(first.body["paging"]["next"]["after"], json!(ids[4]));
    let second = get(&sandbox, &format!("{OBJECTS}/cars?limit=3&after={}", ids[4])).await;
    assert_eq!((second.results().len(), second.body.get("paging")), (1, None));
    let archived = get(&sandbox, &format!("{OBJECTS}/cars?archived=true")).await;
    assert_eq!(
        (archived.results().len(), &archived.results()[0]["archived"]),
        (1, &json!(true))
    );
    assert_eq!(
        get(&sandbox, &format!("{OBJECTS}/cars?limit=101")).await.status,
        400
    );
    let wide = format!("{OBJECTS}/cars?properties={}", "x".repeat(9_000));
    assert_eq!(get(&sandbox, &wide).await.status, 414);
}

async fn search(sandbox: &Sandbox, body: Value) -> super::Answer {
    post(sandbox, &format!("{OBJECTS}/cars/search"), body).await
}

fn filter(property: &str, operator: &str, value: &str) -> Value {
    json!({"filterGroups": [{"filters": [{"propertyName": property, "operator": operator, "value": value}]}]})
}

#[tokio::test]
async fn a_search_compares_as_the_property_does() {
    let sandbox = portal().await;
    for (plate, price) in [("A", "9"), ("B", "10"), ("C", "200")] {
        sandbox.world().create(
            "cars",
            [
                ("plate", plate),
                ("price", price),
                ("note", "Big Red"),
                ("built", "2026-01-01"),
            ],
        );
    }
    for (property, operator, value, count) in [
        ("price", "GT", "9", 2),
        ("price", "LTE", "10", 2),
        ("plate", "EQ", "b", 1),
        ("plate", "NEQ", "B", 2),
        ("note", "CONTAINS_TOKEN", "red", 3),
        ("note", "CONTAINS_TOKEN", "re", 0),
        ("note", "CONTAINS_TOKEN", "re*", 3),
        ("colour", "HAS_PROPERTY", "", 0),
        ("colour", "NOT_HAS_PROPERTY", "", 3),
        ("built", "GTE", "1767225600000", 3),
    ] {
        let answer = search(&sandbox, filter(property, operator, value)).await;
        assert_eq!(answer.body["total"], count, "{property} {operator} {value}");
    }
    let within = |values: Value| json!({"filterGroups": [{"filters": [{"propertyName": "plate", "operator": "IN", "values": values}]}]});
    assert_eq!(search(&sandbox, within(json!(["a", "b"]))).await.body["total"], 2);
    assert_eq!(search(&sandbox, within(json!(["A", "B"]))).await.body["total"], 0);
    let sorted = json!({"sorts": [{"propertyName": "price", "direction": "DESCENDING"}], "properties": ["plate"], "limit": 2});
    let page = search(&sandbox, sorted).await;
    let plates: Vec<&str> = page
        .results()
        .iter()
        .map(|result| result["properties"]["plate"].as_str().unwrap())
        .collect();
    assert_eq!(
        (plates, &page.body["paging"]["next"]["after"]),
        (vec!["C", "B"], &json!("2"))
    );
}

#[tokio::test]
async fn a_search_has_limits_of_its_own() {
    let sandbox = portal().await;
    assert_eq!(search(&sandbox, json!({"limit": 201})).await.status, 400);
    assert_eq!(
        search(&sandbox, json!({"limit": 200, "after": "9800"}))
            .await
            .status,
        200
    );
    assert_eq!(
        search(&sandbox, json!({"limit": 200, "after": "9801"}))
            .await
            .status,
        400
    );
    assert_eq!(
        search(&sandbox, filter("plate", "EQ", &"x".repeat(3_000)))
            .await
            .status,
        400
    );
    assert_eq!(search(&sandbox, filter("huh", "EQ", "x")).await.status, 400);
    assert_eq!(search(&sandbox, filter("plate", "LIKE", "x")).await.status, 400);
    let one = json!({"filters": [{"propertyName": "plate", "operator": "EQ", "value": "x"}]});
    assert_eq!(
        search(&sandbox, json!({"filterGroups": vec![one; 6]}))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_search_lags_behind_the_records_and_a_read_does_not() {
    let sandbox = cars(Settings {
        search_lag: Duration::from_secs(5),
        ..Settings::default()
    })
    .await;
    let inputs = json!([super::car("A", json!({"price": "1"}))]);
    let id = batch(&sandbox, "cars", "upsert", inputs).await.results()[0]["id"].clone();
    let body = json!({"idProperty": "plate", "inputs": [{"id": "A"}]});
    assert_eq!(
        post(&sandbox, &format!("{OBJECTS}/cars/batch/read"), body)
            .await
            .results()[0]["id"],
        id
    );
    assert_eq!(
        search(&sandbox, filter("plate", "EQ", "A")).await.body["total"],
        0
    );
    sandbox.advance(Duration::from_secs(6));
    assert_eq!(
        search(&sandbox, filter("plate", "EQ", "A")).await.body["total"],
        1
    );
    sandbox.world().archive("cars", id.as_str().unwrap());
    assert_eq!(
        search(&sandbox, filter("plate", "EQ", "A")).await.body["total"],
        1
    );
    sandbox.advance(Duration::from_secs(6));
    assert_eq!(
        search(&sandbox, filter("plate", "EQ", "A")).await.body["total"],
        0
    );
}

#[tokio::test]
async fn property_definitions_are_shown_made_and_deleted() {
    let sandbox = portal().await;
    sandbox
        .world()
        .add_property("cars", Property::string("secret").sensitive());
    let path = "/crm/properties/2026-09/2-77";
    let listed = get(&sandbox, path).await;
    let find = |name: &str| listed.results().iter().find(|property| property["name"] == name);
    assert_eq!(find("plate").unwrap()["hasUniqueValue"], true);
    assert_eq!(find("colour").unwrap()["options"][1]["value"], "blue");
    assert_eq!(
        find("hs_object_id").unwrap()["modificationMetadata"]["readOnlyValue"],
        true
    );
    assert!(find("secret").is_none());
    let new = json!({"groupName": "g", "name": "wheels", "label": "Wheels", "type": "number", "fieldType": "number"});
    assert_eq!(post(&sandbox, path, new.clone()).await.status, 201);
    let again = post(&sandbox, path, new).await;
    assert_eq!(
        (again.status, again.body["category"].as_str()),
        (409, Some("OBJECT_ALREADY_EXISTS"))
    );
    let one = format!("{path}/wheels");
    assert_eq!(get(&sandbox, &one).await.body["type"], "number");
    let patched = send(
        &sandbox,
        Method::PATCH,
        &one,
        r#"{"label":"W","hasUniqueValue":true}"#,
    )
    .await
    .unwrap();
    assert_eq!(
        (&patched.body["label"], &patched.body["hasUniqueValue"]),
        (&json!("W"), &json!(false))
    );
    assert_eq!(
        send(&sandbox, Method::DELETE, &one, "").await.unwrap().status,
        204
    );
    assert_eq!(get(&sandbox, &one).await.status, 404);
    let email = get(&sandbox, "/crm/v3/properties/contacts/email").await;
    assert_eq!(email.body["hasUniqueValue"], false);
}

#[tokio::test]
async fn schemas_and_the_account_introduce_themselves() {
    let sandbox = portal().await;
    let schemas = get(&sandbox, "/crm-object-schemas/2026-09/schemas").await;
    assert_eq!(
        (schemas.results().len(), &schemas.results()[0]["objectTypeId"]),
        (1, &json!("2-77"))
    );
    assert_eq!(schemas.results()[0]["fullyQualifiedName"], "p12345678_cars");
    assert_eq!(
        get(&sandbox, "/crm-object-schemas/v3/schemas/cars").await.status,
        200
    );
    let details = get(&sandbox, "/account-info/2026-09/details").await;
    assert_eq!(
        (&details.body["portalId"], &details.body["timeZone"]),
        (&json!(12_345_678), &json!("US/Eastern"))
    );
    let usage = get(&sandbox, "/account-info/2026-09/api-usage/daily/private-apps").await;
    assert_eq!(usage.results()[0]["fetchStatus"], "SUCCESS");
    let path = "/oauth/v2/private-apps/get/access-token-info";
    let info = post(&sandbox, path, json!({"tokenKey": sandbox.token()})).await;
    assert_eq!(info.body["hubId"], 12_345_678);
    assert!(
        info.body["scopes"]
            .as_array()
            .unwrap()
            .contains(&json!("crm.objects.contacts.write"))
    );
    assert_eq!(post(&sandbox, path, json!({"tokenKey": "x"})).await.status, 400);
}

#[tokio::test]
async fn records_come_with_fields_that_nobody_announced() {
    let sandbox = portal().await;
    let id = sandbox.world().create("cars", []);
    let shown = get(&sandbox, &format!("{OBJECTS}/cars/{id}")).await;
    assert!(shown.body.get("fieldOfTheFuture").is_some());
    assert_eq!(
        shown.header("content-type"),
        Some("application/json;charset=utf-8")
    );
}

#[tokio::test]
async fn the_tutoring_portal_has_every_property_of_the_documents() {
    let sandbox = Sandbox::tutoring(Settings::default()).await.unwrap();
    let names = |object: &'static str| {
        let sandbox = &sandbox;
        async move {
            let listed = get(sandbox, &format!("/crm/properties/2026-09/{object}")).await;
            listed
                .results()
                .iter()
                .map(|property| property["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        }
    };
    let contacts = names("0-1").await;
    for name in [
        "student_id",
        "email",
        "sj_credits",
        "cs_credits",
        "sjmini_credits",
        "mock_discussion_token",
        "shared_mock_credits",
    ] {
        assert!(contacts.iter().any(|known| known == name), "{name}");
    }
    assert!(
        names("2-50158913")
            .await
            .contains(&String::from("total_bookings"))
    );
    let labels = get(&sandbox, "/crm/associations/2026-09/2-50158943/2-50158913/labels").await;
    assert_eq!(
        (labels.results().len(), &labels.results()[0]["label"]),
        (1, &Value::Null)
    );
}

#[tokio::test]
async fn waiting_ends_when_the_world_is_as_wished_and_not_before() {
    let sandbox = portal().await;
    assert!(
        !sandbox
            .wait_until(Duration::from_millis(50), |world| world.count(Endpoint::Any) > 0)
            .await
    );
    let waited = sandbox.wait_until(SOON, |world| world.find("cars", "plate", "A").is_some());
    let (seen, _) = tokio::join!(
        waited,
        batch(&sandbox, "cars", "upsert", json!([super::car("A", json!({}))]))
    );
    assert!(seen);
}
