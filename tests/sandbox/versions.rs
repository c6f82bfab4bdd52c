//! The versions side by side: the same world, told differently where HubSpot does.

use super::{cars, get, portal, post};
use hubsyncd::sandbox::Settings;
use serde_json::{Value, json};

/// What the same call answers in v3 or v4, 2026-03 and 2026-09.
const DATED: [&str; 2] = ["2026-03", "2026-09"];

#[tokio::test]
async fn an_association_is_made_with_201_by_2026_03_and_with_200_by_2026_09() {
    let sandbox = portal().await;
    let car = sandbox.world().create("cars", [("plate", "A")]);
    let contact = sandbox.world().create("contacts", []);
    let (owner, _) = sandbox.world().label("cars", "contacts", "Owner");
    let types = json!([{"associationCategory": "USER_DEFINED", "associationTypeId": owner}]);
    let input = json!({"inputs": [{"from": {"id": car}, "to": {"id": contact}, "types": types}]});
    for (version, status) in DATED.into_iter().zip([201, 200]) {
        let path = format!("/crm/associations/{version}/2-77/0-1/batch/create");
        let answer = post(&sandbox, &path, input.clone()).await;
        assert_eq!(answer.status, status, "{version}");
        assert_eq!(
            answer.results()[0]["toObjectId"],
            json!(contact),
            "{version}: a string"
        );
    }
}

#[tokio::test]
async fn a_removed_association_is_an_empty_batch_in_the_dated_versions_and_nothing_in_v4() {
    let sandbox = portal().await;
    for verb in ["archive", "labels/archive"] {
        for version in DATED {
            let path = format!("/crm/associations/{version}/2-77/0-1/batch/{verb}");
            let answer = post(&sandbox, &path, json!({"inputs": []})).await;
            assert_eq!((answer.status, answer.results().len()), (200, 0), "{version}");
        }
        let old = format!("/crm/v4/associations/2-77/0-1/batch/{verb}");
        assert_eq!(post(&sandbox, &old, json!({"inputs": []})).await.status, 204);
    }
}

#[tokio::test]
async fn association_types_name_their_objects_in_2026_03_and_leave_them_empty_in_2026_09() {
    let sandbox = portal().await;
    sandbox.world().associate_types("cars", "contacts");
    let ends = async |version: &str| {
        let types = get(&sandbox, &format!("/crm/associations/{version}/2-77/0-1/labels")).await;
        let kind = types.results()[0].clone();
        (
            kind.get("fromObjectTypeId").cloned(),
            kind.get("toObjectTypeId").cloned(),
        )
    };
    assert_eq!(ends("2026-03").await, (Some(json!("2-77")), Some(json!("0-1"))));
    assert_eq!(ends("2026-09").await, (Some(Value::Null), Some(Value::Null)));
}

#[tokio::test]
async fn rules_of_the_portal_are_enforced_by_2026_09_alone() {
    let sandbox = cars(Settings::default()).await;
    sandbox.world().require_on_form("cars", "price");
    let create = json!({"properties": {"plate": "A"}});
    for (version, status) in DATED.into_iter().zip([201, 400]) {
        let answer = post(&sandbox, &format!("/crm/objects/{version}/cars"), create.clone()).await;
        assert_eq!(answer.status, status, "{version}");
    }
}

#[tokio::test]
async fn an_unknown_version_is_no_path_at_all() {
    let sandbox = portal().await;
    for version in ["2025-09", "2026-09-beta", "2027-03"] {
        let path = format!("/crm/objects/{version}/2-77/batch/read");
        assert_eq!(
            post(&sandbox, &path, json!({"inputs": []})).await.status,
            404,
            "{version}"
        );
    }
}
