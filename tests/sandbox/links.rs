//! Associations.

use super::{OBJECTS, get, portal, post, send};
use hubsyncd::sandbox::{Sandbox, Write};
use reqwest::Method;
use serde_json::{Value, json};

const LINKS: &str = "/crm/associations/2026-09/2-77/0-1/batch";

async fn pair() -> (Sandbox, String, String) {
    let sandbox = portal().await;
    let car = sandbox.world().create("cars", [("plate", "A")]);
    let contact = sandbox.world().create("contacts", [("email", "ada@example.com")]);
    (sandbox, car, contact)
}

async fn links(sandbox: &Sandbox, verb: &str, inputs: Value) -> super::Answer {
    post(sandbox, &format!("{LINKS}/{verb}"), json!({"inputs": inputs})).await
}

fn one(car: &str, contact: &str) -> Value {
    json!({"from": {"id": car}, "to": {"id": contact}})
}

#[tokio::test]
async fn a_default_association_is_made_in_both_directions_and_only_once() {
    let (sandbox, car, contact) = pair().await;
    for _ in 0..2 {
        let answer = links(&sandbox, "associate/default", json!([one(&car, &contact)])).await;
        assert_eq!((answer.status, answer.results().len()), (200, 2));
        let there = answer
            .results()
            .iter()
            .find(|result| result["from"]["id"] == car)
            .unwrap();
        assert_eq!(there["associationSpec"]["associationCategory"], "USER_DEFINED");
    }
    let world = sandbox.world();
    let (there, back) = (
        world.associations("cars", &car, "0-1"),
        world.associations("0-1", &contact, "2-77"),
    );
    assert_eq!(
        (there[0].to.as_str(), back[0].to.as_str(), there.len()),
        (contact.as_str(), car.as_str(), 1)
    );
    assert_ne!(there[0].type_ids, back[0].type_ids);
    let Some(Write::Linked { from, .. }) = world.requests().next_back().unwrap().writes.first() else {
        panic!("the log has no link");
    };
    assert_eq!(from, &(String::from("2-77"), car));
}

#[tokio::test]
async fn a_label_replaces_the_labels_before_and_keeps_the_unlabelled_type() {
    let (sandbox, car, contact) = pair().await;
    let (owner, _) = sandbox.world().label("cars", "contacts", "Owner");
    let (driver, _) = sandbox.world().label("cars", "contacts", "Driver");
    let types = get(&sandbox, "/crm/associations/2026-09/2-77/0-1/labels").await;
    let labels: Vec<&Value> = types.results().iter().map(|kind| &kind["label"]).collect();
    assert_eq!(labels, [&Value::Null, &json!("Owner"), &json!("Driver")]);
    for (id, label) in [(owner, "Owner"), (driver, "Driver")] {
        let mut input = one(&car, &contact);
        input["types"] = json!([{"associationCategory": "USER_DEFINED", "associationTypeId": id}]);
        let answer = links(&sandbox, "create", json!([input])).await;
        assert_eq!(
            (answer.status, &answer.results()[0]["labels"]),
            (200, &json!([label]))
        );
        let held = sandbox.world().associations("cars", &car, "contacts");
        assert_eq!(
            (held[0].labels.as_slice(), held[0].type_ids.len()),
            ([String::from(label)].as_slice(), 2)
        );
    }
    links(&sandbox, "associate/default", json!([one(&car, &contact)])).await;
    assert_eq!(
        sandbox.world().associations("cars", &car, "contacts")[0].labels,
        ["Driver"]
    );
    let mut removal = one(&car, &contact);
    removal["types"] = json!([{"associationCategory": "USER_DEFINED", "associationTypeId": driver}]);
    assert_eq!(
        links(&sandbox, "labels/archive", json!([removal])).await.status,
        200
    );
    assert_eq!(
        sandbox.world().associations("cars", &car, "contacts")[0].labels,
        [""; 0]
    );
}

#[tokio::test]
async fn an_association_is_read_and_its_absence_is_told_as_an_error() {
    let (sandbox, car, contact) = pair().await;
    let lonely = sandbox.world().create("cars", []);
    sandbox.world().associate(("cars", &car), ("contacts", &contact));
    let answer = links(&sandbox, "read", json!([{"id": car}, {"id": lonely}])).await;
    assert_eq!((answer.status, answer.results().len()), (207, 1));
    let result = &answer.results()[0];
    assert_eq!(
        (&result["from"]["id"], &result["to"][0]["toObjectId"]),
        (&json!(car), &json!(contact))
    );
    assert_eq!(result["to"][0]["associationTypes"][0]["category"], "USER_DEFINED");
    let error = &answer.errors()[0];
    assert_eq!(error["subCategory"], "crm.associations.NO_ASSOCIATIONS_FOUND");
    assert_eq!(
        error["message"],
        format!("No contact is associated with car {lonely}.")
    );
    let old = post(
        &sandbox,
        "/crm/v4/associations/2-77/0-1/batch/read",
        json!({"inputs": [{"id": car}]}),
    )
    .await;
    assert_eq!(old.results()[0]["to"][0]["toObjectId"].to_string(), contact);
    let listed = get(&sandbox, &format!("{OBJECTS}/cars/{car}/associations/contacts")).await;
    assert_eq!(listed.results()[0]["toObjectId"], json!(contact));
    let shown = get(&sandbox, &format!("{OBJECTS}/cars/{car}?associations=contacts")).await;
    assert_eq!(
        shown.body["associations"]["contacts"]["results"][0],
        json!({"id": contact, "type": "car_to_contact"})
    );
}

#[tokio::test]
async fn many_associations_of_one_record_come_in_pages() {
    let (sandbox, car, _) = pair().await;
    for _ in 0..501 {
        let contact = sandbox.world().create("contacts", []);
        sandbox.world().associate(("cars", &car), ("contacts", &contact));
    }
    let first = links(&sandbox, "read", json!([{"id": car}])).await;
    assert_eq!(first.results()[0]["to"].as_array().unwrap().len(), 500);
    let after = first.results()[0]["paging"]["next"]["after"].as_str().unwrap();
    let second = links(&sandbox, "read", json!([{"id": car, "after": after}])).await;
    assert_eq!(second.results()[0]["to"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_association_is_removed_in_both_directions() {
    let (sandbox, car, contact) = pair().await;
    sandbox.world().associate(("cars", &car), ("contacts", &contact));
    let answer = links(
        &sandbox,
        "archive",
        json!([{"from": {"id": car}, "to": [{"id": contact}]}]),
    )
    .await;
    assert_eq!((answer.status, answer.results().len()), (200, 0));
    assert!(
        sandbox
            .world()
            .associations("contacts", &contact, "cars")
            .is_empty()
    );
    let old = "/crm/v4/associations/2-77/0-1/batch/archive";
    assert_eq!(post(&sandbox, old, json!({"inputs": []})).await.status, 204);
}

#[tokio::test]
async fn bad_ends_are_told_in_errors_that_name_no_input() {
    let (sandbox, car, contact) = pair().await;
    let inputs = json!([one(&car, &contact), one(&car, "424242"), one("x", &contact)]);
    let answer = links(&sandbox, "associate/default", inputs).await;
    assert_eq!(
        (answer.status, answer.results().len(), &answer.body["numErrors"]),
        (207, 2, &json!(2))
    );
    let context = json!({"INVALID_OBJECT_IDS": ["CONTACT=424242 is not valid"], "objectId": ["424242"], "objectType": ["CONTACT"]});
    assert_eq!(answer.errors()[0]["context"], context);
    assert_eq!(
        answer.errors()[1]["subCategory"],
        "crm.associations.INVALID_IDENTIFIER"
    );
    let path = format!("{OBJECTS}/cars/{car}/associations/default/contacts/424242");
    let single = send(&sandbox, Method::PUT, &path, "").await.unwrap();
    assert_eq!(
        (single.status, single.message()),
        (400, "One or more associations are invalid")
    );
    let itself = "/crm/associations/2026-09/0-1/0-1/batch/associate/default";
    let answer = post(&sandbox, itself, json!({"inputs": [one(&contact, &contact)]})).await;
    assert_eq!(
        answer.errors()[0]["message"],
        format!("Object {contact} cannot be associated to itself ({contact})")
    );
    let undefined = "/crm/associations/2026-09/2-77/0-2/batch/associate/default";
    assert_eq!(post(&sandbox, undefined, json!({"inputs": []})).await.status, 400);
}

#[tokio::test]
async fn association_types_hold_in_one_direction_only() {
    let (sandbox, car, contact) = pair().await;
    let (there, back) = sandbox.world().associate_types("cars", "contacts");
    let put = |id: u32| json!([{"associationCategory": "USER_DEFINED", "associationTypeId": id}]).to_string();
    let path = format!("{OBJECTS}/cars/{car}/associations/contacts/{contact}");
    let made = send(&sandbox, Method::PUT, &path, &put(there)).await.unwrap();
    assert_eq!((made.status, &made.body["toObjectId"]), (201, &json!(contact)));
    let wrong = send(&sandbox, Method::PUT, &path, &put(back)).await.unwrap();
    assert_eq!(
        wrong.message(),
        "invalid from object type 2-77 for associations to be created. expected: 0-1"
    );
    let unknown = send(&sandbox, Method::PUT, &path, &put(3)).await.unwrap();
    assert_eq!(
        unknown.body["context"]["associationSpec"],
        json!(["USER_DEFINED=3"])
    );
    assert_eq!(
        send(&sandbox, Method::DELETE, &path, "").await.unwrap().status,
        204
    );
    assert!(sandbox.world().associations("cars", &car, "contacts").is_empty());
}

#[tokio::test]
async fn a_create_with_a_bad_association_makes_nothing() {
    let (sandbox, _, contact) = pair().await;
    let (there, _) = sandbox.world().associate_types("cars", "contacts");
    let types = json!([{"associationCategory": "USER_DEFINED", "associationTypeId": there}]);
    let body = |to: &str| json!({"properties": {"note": "linked"}, "associations": [{"to": {"id": to}, "types": types}]});
    let bad = post(&sandbox, &format!("{OBJECTS}/cars"), body("424242")).await;
    assert_eq!(
        (bad.status, sandbox.world().find("cars", "note", "linked")),
        (400, None)
    );
    let good = post(&sandbox, &format!("{OBJECTS}/cars"), body(&contact)).await;
    let id = good.body["id"].as_str().unwrap();
    assert_eq!(
        sandbox.world().associations("cars", id, "contacts")[0].to,
        contact
    );
}

#[tokio::test]
async fn batches_of_associations_have_their_own_sizes() {
    let (sandbox, _, _) = pair().await;
    for (verb, most) in [("associate/default", 100), ("create", 2_000), ("read", 1_000)] {
        let mut input = one("1", "2");
        input["id"] = json!("1");
        assert_eq!(
            links(&sandbox, verb, json!(vec![input.clone(); most + 1]))
                .await
                .status,
            400,
            "{verb}"
        );
        assert_ne!(
            links(&sandbox, verb, json!(vec![input; most])).await.status,
            400,
            "{verb}"
        );
    }
}

#[tokio::test]
async fn associations_follow_a_merge_and_end_with_an_archived_record() {
    let (sandbox, car, contact) = pair().await;
    let other = sandbox.world().create("contacts", []);
    sandbox.world().associate(("cars", &car), ("contacts", &contact));
    let survivor = sandbox.world().merge("contacts", &other, &contact).unwrap();
    assert_eq!(
        sandbox.world().associations("cars", &car, "contacts")[0].to,
        survivor
    );
    sandbox.world().archive("contacts", &survivor);
    assert!(sandbox.world().associations("cars", &car, "contacts").is_empty());
}

#[tokio::test]
async fn labels_are_made_in_pairs_until_there_are_too_many() {
    let (sandbox, _, _) = pair().await;
    let path = "/crm/associations/2026-09/2-77/0-1/labels";
    let made = post(
        &sandbox,
        path,
        json!({"label": "Owner", "inverseLabel": "Owns", "name": "owner"}),
    )
    .await;
    assert_eq!(
        (&made.results()[0]["label"], &made.results()[1]["label"]),
        (&json!("Owner"), &json!("Owns"))
    );
    for number in 0..49 {
        sandbox.world().label("cars", "contacts", &format!("L{number}"));
    }
    assert_eq!(post(&sandbox, path, json!({"label": "More"})).await.status, 437);
}
