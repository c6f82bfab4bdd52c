//! Creating, updating and upserting records.

use super::{OBJECTS, batch, car, cars, get, portal, post, send};
use hubsyncd::sandbox::{Endpoint, Property, Settings, Write};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn an_upsert_creates_and_then_updates_the_same_record() {
    let sandbox = portal().await;
    let inputs = json!([car("A", json!({"price": 5}))]);
    let first = batch(&sandbox, "2-77", "upsert", inputs.clone()).await;
    let second = batch(&sandbox, "2-77", "upsert", inputs).await;
    assert_eq!((first.status, second.status), (200, 200));
    let (first, second) = (first.result("plate", "A"), second.result("plate", "A"));
    assert_eq!((&first["new"], &second["new"]), (&json!(true), &json!(false)));
    assert_eq!(
        (&first["objectWriteTraceId"], &first["id"]),
        (&json!("A"), &second["id"])
    );
    let world = sandbox.world();
    assert_eq!(world.records("cars").count(), 1);
    assert_eq!(world.find("cars", "plate", "A").unwrap().get("price"), Some("5"));
    assert_eq!(world.count(Endpoint::Upsert), 2);
}

#[tokio::test]
async fn one_bad_record_among_traced_ones_is_refused_alone() {
    let sandbox = portal().await;
    let inputs = json!([
        car("A", json!({"price": "4000"})),
        car("B", json!({"price": "cheap"})),
        car("C", json!({}))
    ]);
    let answer = batch(&sandbox, "2-77", "upsert", inputs).await;
    assert_eq!((answer.status, answer.results().len()), (207, 2));
    assert_eq!(answer.body["numErrors"], 1);
    let error = &answer.errors()[0];
    assert_eq!(
        (&error["category"], &error["context"]),
        (&json!("VALIDATION_ERROR"), &json!({"objectWriteTraceId": ["B"]}))
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("Property values were not valid: [{\"isValid\":false,")
    );
    assert!(sandbox.world().find("cars", "plate", "B").is_none());
}

#[tokio::test]
async fn without_a_trace_id_on_every_input_one_bad_record_refuses_all() {
    let sandbox = portal().await;
    let mut good = car("A", json!({"price": "1"}));
    good["objectWriteTraceId"] = json!("B");
    let answer = batch(
        &sandbox,
        "2-77",
        "upsert",
        json!([good, car("B", json!({"price": "cheap", "huh": "1"}))]),
    )
    .await;
    assert_eq!(
        (answer.status, answer.body["category"].as_str()),
        (400, Some("VALIDATION_ERROR"))
    );
    let codes: Vec<&str> = answer
        .errors()
        .iter()
        .map(|error| error["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["PROPERTY_DOESNT_EXIST", "INVALID_DOUBLE"]);
    assert_eq!(
        answer.body["correlationId"].as_str(),
        answer.header("x-hubspot-correlation-id")
    );
    assert_eq!(sandbox.world().records("cars").count(), 0);
}

#[tokio::test]
async fn more_than_a_hundred_inputs_are_refused() {
    let sandbox = portal().await;
    let inputs: Vec<_> = (0..101)
        .map(|number| car(&number.to_string(), json!({})))
        .collect();
    let answer = batch(&sandbox, "2-77", "upsert", json!(inputs)).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.message(),
        "The maximum number of inputs supported in a batch is 100. Please reduce the number of items and try again"
    );
    assert_eq!(
        batch(&sandbox, "2-77", "upsert", json!(inputs[..100]))
            .await
            .results()
            .len(),
        100
    );
}

#[tokio::test]
async fn a_duplicate_id_refuses_the_whole_batch_also_with_trace_ids() {
    let sandbox = portal().await;
    let answer = batch(
        &sandbox,
        "2-77",
        "upsert",
        json!([car("A", json!({})), car("A", json!({}))]),
    )
    .await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.message(),
        "Duplicate IDs found in batch input: [A]. IDs must be unique"
    );
    assert_eq!(answer.body["context"], json!({"ids": ["A"]}));
    let contact = |email: &str| json!({"id": email, "idProperty": "email", "objectWriteTraceId": email, "properties": {}});
    let inputs = json!([contact("ada@example.com"), contact(" ADA@example.com")]);
    assert_eq!(batch(&sandbox, "0-1", "upsert", inputs).await.status, 400);
    let twice = json!([{"id": "1", "properties": {"price": 1}}, {"id": "1", "properties": {"price": 1}}]);
    assert_eq!(batch(&sandbox, "2-77", "update", twice).await.status, 400);
    assert_eq!(
        batch(&sandbox, "2-77", "read", json!([{"id": "1"}, {"id": "1"}]))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn only_unique_properties_identify_records() {
    let sandbox = portal().await;
    let by = |key: &str| json!([{"id": "x", "idProperty": key, "properties": {"price": 1}}]);
    for (verb, object, key) in [
        ("upsert", "2-77", "note"),
        ("upsert", "0-3", "dealname"),
        ("upsert", "2-77", "hs_object_id"),
        ("update", "2-77", "note"),
        ("update", "0-1", "email"),
    ] {
        let answer = batch(&sandbox, object, verb, by(key)).await;
        assert_eq!(answer.status, 400, "{verb} by {key}");
        assert_eq!(
            answer.message(),
            format!("Unable to perform {verb} by non-unique {object} property {key}")
        );
    }
    let without = json!([{"id": "x", "properties": {}}]);
    assert_eq!(batch(&sandbox, "2-77", "upsert", without).await.status, 400);
}

#[tokio::test]
async fn a_malformed_batch_is_answered_with_success_and_writes_nothing() {
    let sandbox = portal().await;
    let path = format!("{OBJECTS}/2-77/batch/upsert");
    for body in [
        json!([car("A", json!({}))]),
        car("A", json!({})),
        json!({"input": [car("A", json!({}))]}),
    ] {
        let answer = post(&sandbox, &path, body).await;
        assert_eq!((answer.status, answer.results().len()), (200, 0));
    }
    assert_eq!(sandbox.world().records("cars").count(), 0);
    let broken = send(&sandbox, Method::POST, &path, "{\"inputs\": [")
        .await
        .unwrap();
    assert_eq!((broken.status, broken.body.get("category")), (400, None));
    assert!(
        broken
            .message()
            .starts_with("Invalid input JSON on line 1, column ")
    );
    let unknown = batch(&sandbox, "butterflies", "upsert", json!([])).await;
    assert_eq!(
        (unknown.status, unknown.message()),
        (400, "Unable to infer object type from: butterflies")
    );
}

#[tokio::test]
async fn values_are_taken_or_refused_by_the_type_of_their_property() {
    let sandbox = portal().await;
    for (property, sent, stored) in [
        ("price", json!("12.50"), "12.50"),
        ("price", json!(-3), "-3"),
        ("colour", json!("red"), "red"),
        ("extras", json!("radio;roof"), "radio;roof"),
        ("sold", json!(true), "true"),
        ("built", json!("2026-02-28"), "2026-02-28"),
        ("built", json!("1772236800000"), "2026-02-28"),
        ("seen", json!("2026-02-28T12:00:00+02:00"), "2026-02-28T10:00:00Z"),
        ("seen", json!("1772236800001"), "2026-02-28T00:00:00.001Z"),
        ("note", json!("🦄"), "🦄"),
    ] {
        let answer = batch(
            &sandbox,
            "2-77",
            "upsert",
            json!([car("A", json!({property: sent}))]),
        )
        .await;
        assert_eq!(answer.status, 200, "{property} {sent}: {}", answer.body);
        assert_eq!(answer.results()[0]["properties"][property], stored);
    }
    for (property, sent, code) in [
        ("price", "1,000", "INVALID_DOUBLE"),
        ("price", "1e3", "INVALID_DOUBLE"),
        ("price", "NaN", "INVALID_DOUBLE"),
        ("colour", "Red", "INVALID_OPTION"),
        ("extras", "radio;sail", "INVALID_OPTION"),
        ("sold", "yes", "INVALID_OPTION"),
        ("built", "2026-02-30", "INVALID_DATE"),
        ("seen", "infinity", "INVALID_DATE"),
        ("score", "1", "READ_ONLY_VALUE"),
        ("hs_object_id", "1", "READ_ONLY_VALUE"),
        ("huh", "1", "PROPERTY_DOESNT_EXIST"),
        ("note", &"x".repeat(65_537), "INVALID_STRING"),
    ] {
        let answer = post(
            &sandbox,
            &format!("{OBJECTS}/2-77"),
            json!({"properties": {property: sent}}),
        )
        .await;
        assert_eq!(
            (answer.status, answer.errors()[0]["code"].as_str()),
            (400, Some(code)),
            "{property}"
        );
    }
    let null = post(
        &sandbox,
        &format!("{OBJECTS}/2-77"),
        json!({"properties": {"note": null}}),
    )
    .await;
    assert_eq!(null.status, 400);
}

#[tokio::test]
async fn an_empty_string_clears_and_a_leading_semicolon_adds() {
    let sandbox = portal().await;
    let id = sandbox
        .world()
        .create("cars", [("plate", "A"), ("price", "1"), ("extras", "roof")]);
    let inputs = json!([{"id": id, "properties": {"price": "", "extras": ";radio"}}]);
    assert_eq!(batch(&sandbox, "2-77", "update", inputs).await.status, 200);
    let world = sandbox.world();
    let record = world.record("cars", &id).unwrap();
    assert_eq!(
        (record.get("price"), record.get("extras")),
        (None, Some("roof;radio"))
    );
}

#[tokio::test]
async fn a_date_past_midnight_is_moved_by_the_newest_version_and_refused_by_the_others() {
    let sandbox = portal().await;
    let body = json!({"properties": {"built": "2026-02-28T10:00:00Z"}});
    let moved = post(&sandbox, &format!("{OBJECTS}/2-77"), body.clone()).await;
    assert_eq!(
        (moved.status, &moved.body["properties"]["built"]),
        (201, &json!("2026-02-28"))
    );
    assert_eq!(moved.body["warnings"][0]["category"], "PROPERTY_VALUE_NORMALIZED");
    for path in ["/crm/v3/objects/2-77", "/crm/objects/2026-03/2-77"] {
        assert_eq!(post(&sandbox, path, body.clone()).await.status, 400);
    }
}

#[tokio::test]
async fn addresses_are_trimmed_lower_cased_and_refused_under_unknown_names() {
    let sandbox = portal().await;
    let create = |email: &str| json!([{"objectWriteTraceId": "t", "properties": {"email": email}}]);
    let made = batch(&sandbox, "contacts", "create", create(" Ada@Example.COM ")).await;
    assert_eq!(made.results()[0]["properties"]["email"], "ada@example.com");
    assert_eq!(made.results()[0].get("objectWriteTraceId"), None);
    for email in ["ada", "ada@", "ada@school", "ada@school.test", "a b@example.com"] {
        let answer = batch(&sandbox, "contacts", "create", create(email)).await;
        assert!(
            answer.errors()[0]["message"]
                .as_str()
                .unwrap()
                .contains("INVALID_EMAIL"),
            "{email}"
        );
    }
}

#[tokio::test]
async fn a_contact_that_exists_is_a_conflict_that_names_it() {
    let sandbox = portal().await;
    let id = sandbox.world().create(
        "contacts",
        [
            ("email", "ada@example.com"),
            ("hs_additional_emails", "a@b.com;c@d.com"),
        ],
    );
    for email in ["ADA@example.com", "c@d.com"] {
        let single = post(
            &sandbox,
            &format!("{OBJECTS}/contacts"),
            json!({"properties": {"email": email}}),
        )
        .await;
        assert_eq!(
            (single.status, single.body["category"].as_str()),
            (409, Some("CONFLICT"))
        );
        assert_eq!(
            single.message(),
            format!("Contact already exists. Existing ID: {id}")
        );
    }
    let inputs = json!([{"properties": {"email": "new@example.com"}}, {"properties": {"email": "c@d.com"}}]);
    assert_eq!(batch(&sandbox, "contacts", "create", inputs).await.status, 409);
    assert!(
        sandbox
            .world()
            .find("contacts", "email", "new@example.com")
            .is_none()
    );
    let traced = json!([{"objectWriteTraceId": "0", "properties": {"email": "c@d.com"}}]);
    let answer = batch(&sandbox, "contacts", "create", traced).await;
    assert_eq!(
        answer.errors()[0]["context"],
        json!({"objectWriteTraceId": ["0"], "existingId": [id]})
    );
    let twice = json!([{"objectWriteTraceId": "0", "properties": {"email": "x@d.com"}},
                       {"objectWriteTraceId": "1", "properties": {"email": "X@d.com"}}]);
    let answer = batch(&sandbox, "contacts", "create", twice).await;
    assert_eq!((answer.status, answer.message()), (409, "Contact already exists"));
}

#[tokio::test]
async fn an_upsert_finds_a_contact_by_its_secondary_address() {
    let sandbox = portal().await;
    let id = sandbox.world().create(
        "contacts",
        [
            ("email", "ada@example.com"),
            ("hs_additional_emails", "old@example.com"),
        ],
    );
    let input = json!({"id": "OLD@example.com", "idProperty": "email", "properties": {"firstname": "Ada"}});
    let answer = batch(&sandbox, "contacts", "upsert", json!([input])).await;
    assert_eq!(
        (&answer.results()[0]["id"], &answer.results()[0]["new"]),
        (&json!(id), &json!(false))
    );
    assert_eq!(answer.results()[0]["properties"]["email"], "ada@example.com");
}

#[tokio::test]
async fn a_unique_value_is_held_by_one_record() {
    let sandbox = portal().await;
    let holder = sandbox.world().create("cars", [("plate", "A")]);
    let other = sandbox.world().create("cars", [("plate", "B")]);
    let inputs = json!([{"id": other, "objectWriteTraceId": "t", "properties": {"plate": "A"}}]);
    let answer = batch(&sandbox, "2-77", "update", inputs).await;
    let message = answer.errors()[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Cannot set PropertyValueCoordinates{portalId=12345678, "),
        "{message}"
    );
    assert!(message.ends_with(&format!(
        "propertyName=plate, value=A}} on {other}. {holder} already has that value."
    )));
    let twins = json!([{"objectWriteTraceId": "1", "properties": {"plate": "C"}},
                       {"objectWriteTraceId": "2", "properties": {"plate": "C"}}]);
    let answer = batch(&sandbox, "2-77", "create", twins).await;
    assert_eq!((answer.results().len(), answer.errors().len()), (1, 1));
    sandbox.world().archive("cars", &holder);
    assert_eq!(
        batch(&sandbox, "2-77", "upsert", json!([car("A", json!({}))]))
            .await
            .results()[0]["new"],
        json!(true)
    );
}

#[tokio::test]
async fn an_update_writes_what_is_there_and_names_the_rest_in_one_error() {
    let sandbox = portal().await;
    let alive = sandbox.world().create("contacts", []);
    let gone = sandbox.world().create("contacts", []);
    sandbox.world().archive("contacts", &gone);
    let input = |id: &str, trace: &str| json!({"id": id, "objectWriteTraceId": trace, "properties": {"firstname": "X"}});
    let inputs = json!([
        input(&alive, "u1"),
        input(&gone, "u2"),
        input("ada@example.com", "u3")
    ]);
    let answer = batch(&sandbox, "contacts", "update", inputs).await;
    assert_eq!(
        (answer.status, answer.results().len(), answer.errors().len()),
        (207, 1, 1)
    );
    let error = &answer.errors()[0];
    assert_eq!(error["category"], "OBJECT_NOT_FOUND");
    assert_eq!(
        error["message"],
        "Could not get some CONTACT objects, they may be deleted or not exist. Check that ids are valid."
    );
    assert_eq!(
        error["context"],
        json!({"ids": [gone, "ada@example.com"], "objectWriteTraceId": ["u2", "u3"]})
    );
    let untraced = json!([{"id": alive, "properties": {"firstname": "Y"}}, {"id": "7", "properties": {"firstname": "Y"}}]);
    assert_eq!(batch(&sandbox, "contacts", "update", untraced).await.status, 207);
    assert_eq!(
        sandbox
            .world()
            .record("contacts", &alive)
            .unwrap()
            .get("firstname"),
        Some("Y")
    );
}

#[tokio::test]
async fn an_update_shows_only_what_was_written() {
    let sandbox = portal().await;
    let id = sandbox.world().create("cars", [("plate", "A"), ("price", "1")]);
    let answer = batch(
        &sandbox,
        "2-77",
        "update",
        json!([{"id": id, "properties": {"price": "2"}}]),
    )
    .await;
    let shown: Vec<&String> = answer.results()[0]["properties"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(
        shown,
        ["hs_createdate", "hs_lastmodifieddate", "hs_object_id", "price"]
    );
    let empty = batch(&sandbox, "2-77", "update", json!([{"id": id, "properties": {}}])).await;
    assert_eq!(
        empty.message(),
        "No properties found to update, please provide at least one."
    );
}

#[tokio::test]
async fn an_update_by_a_unique_value_that_nobody_has_refuses_the_whole_batch() {
    let sandbox = portal().await;
    let answer = batch(&sandbox, "2-77", "update", json!([car("A", json!({"price": 1}))])).await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.body["context"],
        json!({"missingObjectPropertyValueCoordinates": ["plate:A"]})
    );
}

#[tokio::test]
async fn a_merged_away_id_vanishes_from_a_batch_and_leads_to_the_survivor_elsewhere() {
    let sandbox = portal().await;
    let mut ids = ["ada@example.com", "ann@example.com"]
        .map(|email| sandbox.world().create("contacts", [("email", email)]));
    ids.sort();
    let answer = post(
        &sandbox,
        &format!("{OBJECTS}/contacts/merge"),
        json!({"primaryObjectId": ids[0], "objectIdToMerge": ids[1]}),
    )
    .await;
    let survivor = answer.body["id"].as_str().unwrap();
    assert!(!ids.iter().any(|id| id == survivor));
    assert_eq!(
        answer.body["properties"]["hs_additional_emails"],
        "ann@example.com"
    );
    let inputs = json!([{"id": ids[0], "objectWriteTraceId": "t", "properties": {"firstname": "X"}}]);
    let silent = batch(&sandbox, "contacts", "update", inputs).await;
    assert_eq!(
        (silent.status, silent.results().len(), silent.body.get("errors")),
        (200, 0, None)
    );
    let read = batch(&sandbox, "contacts", "read", json!([{"id": ids[1]}])).await;
    assert_eq!((read.status, read.results().len()), (200, 0));
    for id in &ids {
        assert_eq!(
            get(&sandbox, &format!("{OBJECTS}/contacts/{id}")).await.body["id"],
            survivor
        );
    }
    let path = format!("{OBJECTS}/contacts/{}", ids[1]);
    let patched = send(
        &sandbox,
        Method::PATCH,
        &path,
        r#"{"properties":{"firstname":"X"}}"#,
    )
    .await
    .unwrap();
    assert_eq!(patched.body["id"], survivor);
}

#[tokio::test]
async fn required_properties_and_the_rules_of_the_newest_version() {
    let sandbox = portal().await;
    sandbox.world().define(
        "2-78",
        "boats",
        [
            Property::string("name").required(),
            Property::string("flag"),
            Property::string("port"),
        ],
    );
    let create = |properties: serde_json::Value| json!({"properties": properties});
    let missing = post(&sandbox, &format!("{OBJECTS}/boats"), create(json!({}))).await;
    assert_eq!(
        missing.message(),
        "Error creating 2-78. Some required properties were not set."
    );
    assert_eq!(missing.body["context"], json!({"properties": ["name"]}));
    sandbox.world().require_on_form("boats", "port");
    sandbox.world().require_when("boats", "flag", "port");
    let body = create(json!({"name": "Ark", "flag": "none"}));
    let ruled = post(&sandbox, &format!("{OBJECTS}/boats"), body.clone()).await;
    let codes: Vec<&str> = ruled
        .errors()
        .iter()
        .map(|error| error["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        codes,
        [
            "MISSING_REQUIRED_PROPERTY",
            "MISSING_CONDITIONAL_REQUIRED_PROPERTY"
        ]
    );
    assert_eq!(post(&sandbox, "/crm/v3/objects/boats", body).await.status, 201);
}

#[tokio::test]
async fn a_lifecycle_stage_never_moves_back() {
    let sandbox = portal().await;
    let id = sandbox
        .world()
        .create("contacts", [("lifecyclestage", "customer")]);
    for (stage, held) in [("lead", Some("customer")), ("", None), ("lead", Some("lead"))] {
        let inputs = json!([{"id": id, "properties": {"lifecyclestage": stage}}]);
        assert_eq!(batch(&sandbox, "contacts", "update", inputs).await.status, 200);
        assert_eq!(
            sandbox
                .world()
                .record("contacts", &id)
                .unwrap()
                .get("lifecyclestage"),
            held
        );
    }
}

#[tokio::test]
async fn statuses_are_those_of_the_version() {
    let sandbox = cars(Settings {
        multi_status: false,
        ..Settings::default()
    })
    .await;
    let inputs = json!({"inputs": [{"objectWriteTraceId": "1", "properties": {"price": "1"}},
                                   {"objectWriteTraceId": "2", "properties": {"price": "x"}}]});
    for (path, status) in [
        ("/crm/v3/objects", 207),
        ("/crm/objects/2026-03", 207),
        (OBJECTS, 201),
    ] {
        let answer = post(&sandbox, &format!("{path}/cars/batch/create"), inputs.clone()).await;
        assert_eq!(
            (answer.status, answer.results().len(), answer.errors().len()),
            (status, 1, 1)
        );
    }
}

#[tokio::test]
async fn the_order_of_results_follows_the_seed_and_not_the_inputs() {
    let inputs: Vec<_> = (0..20)
        .map(|number| car(&format!("P{number:02}"), json!({})))
        .collect();
    let mut orders = Vec::new();
    for seed in [7, 7, 8] {
        let sandbox = cars(Settings {
            seed,
            ..Settings::default()
        })
        .await;
        let answer = batch(&sandbox, "2-77", "upsert", json!(inputs)).await;
        orders.push(
            answer
                .results()
                .iter()
                .map(|result| result["objectWriteTraceId"].to_string())
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(orders[0], orders[1]);
    assert_ne!(orders[0], orders[2]);
    assert!(!orders[0].is_sorted());
}

#[tokio::test]
async fn the_log_says_what_every_request_wrote() {
    let sandbox = portal().await;
    let inputs = json!([car("A", json!({"price": "1"})), car("B", json!({"price": "x"}))]);
    batch(&sandbox, "2-77", "upsert", inputs).await;
    let world = sandbox.world();
    let request = world.requests().next_back().unwrap();
    assert_eq!(
        (request.endpoint, request.inputs, request.status),
        (Endpoint::Upsert, 2, Some(207))
    );
    let Write::Record {
        id,
        created,
        properties,
        ..
    } = &request.writes[0]
    else {
        panic!("no record in {:?}", request.writes);
    };
    assert_eq!(
        (world.record("cars", id).unwrap().get("plate"), *created),
        (Some("A"), true)
    );
    assert!(properties.contains(&(String::from("price"), String::from("1"))));
    assert_eq!((request.writes.len(), world.answered_with(207)), (1, 1));
}
