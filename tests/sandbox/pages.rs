//! A portal with many records: pages of it, searches by date, associations beside records, and pages gone wrong.

use super::{OBJECTS, get, portal, post};
use hubsyncd::sandbox::{Endpoint, Fault, Population, Sandbox, Settings};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PEOPLE: Population = Population {
    contacts: 1_000,
    companies: 50,
    deals: 120,
};

async fn populated() -> Sandbox {
    let sandbox = Sandbox::start(Settings::default()).await.unwrap();
    sandbox.world().populate(PEOPLE);
    sandbox
}

/// Every record that paging shows, in its order.
async fn paged(sandbox: &Sandbox, path: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(sandbox, &format!("{path}&limit=100{after}")).await;
        all.extend(page.results().to_vec());
        match page.body["paging"]["next"]["after"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

fn ids(records: &[Value]) -> Vec<u64> {
    let id = |record: &Value| record["id"].as_str().unwrap().parse().unwrap();
    records.iter().map(id).collect()
}

#[tokio::test]
async fn paging_shows_every_record_once_by_id_and_the_archived_ones_only_when_asked() {
    let sandbox = populated().await;
    let all = paged(&sandbox, &format!("{OBJECTS}/contacts?properties=email,city")).await;
    assert_eq!(all.len(), PEOPLE.contacts);
    assert!(ids(&all).is_sorted_by(|one, other| one < other));
    let emails: BTreeSet<&str> = all
        .iter()
        .filter_map(|one| one["properties"]["email"].as_str())
        .collect();
    assert_eq!(
        emails.len(),
        PEOPLE.contacts,
        "every contact has an address of its own"
    );
    let gone: Vec<String> = ids(&all).iter().step_by(3).map(u64::to_string).collect();
    for id in &gone[..200] {
        assert!(sandbox.world().archive("0-1", id));
    }
    assert!(sandbox.world().purge("0-1", &gone[200]));
    let archived = paged(&sandbox, &format!("{OBJECTS}/contacts?archived=true")).await;
    assert_eq!(archived.len(), 200);
    assert!(archived.iter().all(|one| one["archivedAt"].is_string()));
    let left = paged(&sandbox, &format!("{OBJECTS}/contacts?properties=email")).await;
    assert_eq!(left.len(), PEOPLE.contacts - 201);
}

#[tokio::test]
async fn associations_stand_beside_a_record_by_every_type_and_a_long_list_goes_on_elsewhere() {
    let sandbox = populated().await;
    let largest = sandbox.world().records("companies").next().unwrap().id();
    let others: Vec<String> = sandbox.world().records("contacts").map(|one| one.id()).collect();
    for contact in &others[..600] {
        sandbox.world().associate(("0-1", contact), ("0-2", &largest));
    }
    let held = sandbox.world().associations("0-2", &largest, "0-1");
    assert!(held.len() >= 600);
    let shown = get(
        &sandbox,
        &format!("{OBJECTS}/companies/{largest}?associations=contacts,deals"),
    )
    .await;
    let contacts = &shown.body["associations"]["contacts"];
    let beside: BTreeSet<&str> = contacts["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["id"].as_str())
        .collect();
    assert_eq!(beside.len(), 100);
    let names: BTreeSet<&str> = contacts["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["type"].as_str())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["company_to_contact", "company_to_contact_unlabeled"])
    );
    let mut found: BTreeSet<String> = beside.iter().map(|id| (*id).to_owned()).collect();
    let mut next = contacts["paging"]["next"]["after"].as_str().map(str::to_owned);
    while let Some(after) = next {
        let path = format!("{OBJECTS}/companies/{largest}/associations/contacts?after={after}");
        let page = get(&sandbox, &path).await;
        assert!(page.results().len() <= 500);
        found.extend(
            page.results()
                .iter()
                .map(|one| one["toObjectId"].as_str().unwrap().to_owned()),
        );
        next = page.body["paging"]["next"]["after"].as_str().map(str::to_owned);
    }
    assert_eq!(
        found,
        held.into_iter().map(|link| link.to).collect::<BTreeSet<String>>()
    );
    let deal = sandbox.world().records("deals").next().unwrap().id();
    let shown = get(&sandbox, &format!("{OBJECTS}/deals/{deal}?associations=contacts")).await;
    assert_eq!(
        shown.body["associations"]["contacts"]["results"][0]["type"],
        "deal_to_contact"
    );
}

#[tokio::test]
async fn a_search_by_date_of_modification_finds_what_a_scan_would_in_its_order() {
    let sandbox = populated().await;
    let mut dated: Vec<(i64, u64)> = sandbox
        .world()
        .records("deals")
        .map(|one| (one.updated_ms(), one.id().parse().unwrap()))
        .collect();
    dated.sort_unstable();
    let (low, high) = (dated[30].0, dated[90].0);
    let search = |filters: Value, descending: bool| {
        let direction = if descending { "DESCENDING" } else { "ASCENDING" };
        json!({"filterGroups": [{"filters": filters}], "limit": 200,
               "sorts": [{"propertyName": "hs_lastmodifieddate", "direction": direction}]})
    };
    let name = "hs_lastmodifieddate";
    let cases = [
        ("GTE", low.to_string(), 30..120),
        ("GT", low.to_string(), 31..120),
        ("LTE", low.to_string(), 0..31),
        ("LT", low.to_string(), 0..30),
        ("EQ", low.to_string(), 30..31),
    ];
    for (operator, value, expected) in cases {
        let filters = json!([{"propertyName": name, "operator": operator, "value": value}]);
        let found = post(
            &sandbox,
            &format!("{OBJECTS}/deals/search"),
            search(filters, false),
        )
        .await;
        let wanted: Vec<u64> = dated[expected].iter().map(|at| at.1).collect();
        assert_eq!(
            (ids(found.results()), found.body["total"].as_u64()),
            (wanted.clone(), Some(wanted.len() as u64)),
            "{operator}"
        );
    }
    let between = json!([{"propertyName": name, "operator": "BETWEEN", "value": low.to_string(), "highValue": high.to_string()},
                         {"propertyName": "hs_object_id", "operator": "GT", "value": dated[40].1.to_string()}]);
    let found = post(
        &sandbox,
        &format!("{OBJECTS}/deals/search"),
        search(between, true),
    )
    .await;
    let wanted: Vec<u64> = dated[30..=90]
        .iter()
        .rev()
        .map(|at| at.1)
        .filter(|id| *id > dated[40].1)
        .collect();
    assert_eq!(ids(found.results()), wanted);
    let never = json!([{"propertyName": name, "operator": "GT", "value": high.to_string()},
                       {"propertyName": name, "operator": "LT", "value": low.to_string()}]);
    let found = post(&sandbox, &format!("{OBJECTS}/deals/search"), search(never, false)).await;
    assert_eq!(found.body["total"], 0);
}

#[tokio::test]
async fn stamped_records_share_one_date_and_paging_past_ten_thousand_of_them_is_refused() {
    let sandbox = Sandbox::start(Settings::default()).await.unwrap();
    sandbox.world().populate(Population {
        contacts: 10_100,
        ..Population::default()
    });
    let all: Vec<String> = sandbox.world().records("0-1").map(|one| one.id()).collect();
    let at = sandbox.world().stamp("0-1", all.iter().map(String::as_str));
    let asked = |after: u32, more: Value| {
        let mut filters =
            vec![json!({"propertyName": "lastmodifieddate", "operator": "EQ", "value": at.to_string()})];
        filters.extend(more.as_array().cloned().unwrap_or_default());
        json!({"filterGroups": [{"filters": filters}], "limit": 100, "after": after.to_string(),
               "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}]})
    };
    let path = format!("{OBJECTS}/contacts/search");
    let last = post(&sandbox, &path, asked(9_900, Value::Null)).await;
    assert_eq!((last.status, &last.body["total"]), (200, &json!(10_100)));
    assert_eq!(
        post(&sandbox, &path, asked(10_000, Value::Null)).await.status,
        400
    );
    let from = last.results().last().unwrap()["id"].clone();
    let more = json!([{"propertyName": "hs_object_id", "operator": "GT", "value": from}]);
    let rest = post(&sandbox, &path, asked(0, more)).await;
    assert_eq!((rest.results().len(), &rest.body["total"]), (100, &json!(100)));
}

#[tokio::test]
async fn a_page_can_go_wrong_in_every_way_that_has_a_name() {
    let sandbox = populated().await;
    let first = get(&sandbox, &format!("{OBJECTS}/contacts?limit=10")).await;
    let next = first.body["paging"]["next"]["after"].as_str().unwrap().to_owned();
    let spoiled = async |name: &str| {
        sandbox.fault(Fault::named(name).unwrap().on(Endpoint::List));
        get(&sandbox, &format!("{OBJECTS}/contacts?limit=10&after={next}")).await
    };
    let page = spoiled("repeated-page").await;
    assert_eq!(page.body["paging"]["next"]["after"], json!(next));
    let page = spoiled("unknown-cursor").await;
    assert_eq!(
        (page.status, page.body["category"].as_str()),
        (400, Some("VALIDATION_ERROR"))
    );
    let page = spoiled("repeated-record").await;
    assert_eq!(
        (page.results().len(), &page.results()[10]["id"]),
        (11, &page.results()[0]["id"])
    );
    let page = spoiled("record-without-id").await;
    assert!(page.results()[0].get("id").is_none() && page.results()[1]["id"].is_string());
    let page = spoiled("mistyped-property").await;
    assert!(
        page.results()[0]["properties"]
            .as_object()
            .unwrap()
            .values()
            .any(Value::is_object)
    );
    let page = spoiled("mistyped-date").await;
    assert!(
        page.results()[0]["updatedAt"]
            .as_str()
            .unwrap()
            .starts_with("the day")
    );
    assert_eq!(sandbox.faults_waiting(), 0);
}

#[tokio::test]
async fn the_control_routes_fill_change_and_purge() {
    let sandbox = portal().await;
    let done = post(
        &sandbox,
        "/_sandbox/populate",
        json!({"contacts": 5, "companies": 2, "deals": 3}),
    )
    .await;
    assert_eq!(done.status, 200);
    let count = |kind: &str| sandbox.world().records(kind).count();
    assert_eq!((count("contacts"), count("companies"), count("deals")), (5, 2, 3));
    let id = sandbox.world().records("deals").next().unwrap().id();
    let set = post(
        &sandbox,
        "/_sandbox/set/deals",
        json!({"id": id, "properties": {"amount": "7"}}),
    )
    .await;
    assert_eq!(
        (
            set.status,
            sandbox.world().record("0-3", &id).unwrap().get("amount")
        ),
        (200, Some("7"))
    );
    assert_eq!(
        post(&sandbox, "/_sandbox/purge/deals", json!({"id": id}))
            .await
            .status,
        200
    );
    assert_eq!(
        post(&sandbox, "/_sandbox/purge/deals", json!({"id": id}))
            .await
            .status,
        404
    );
    assert!(sandbox.world().record("0-3", &id).is_none());
}
