//! The client against the sandbox: every method as HubSpot answers it, and every fault.

use std::time::Duration;

use hubsyncd::hubspot::{
    AssociationKind, BatchReply, Budget, Client, Disposition, Failed, Lane, Policy, ReadLinks, Settings,
    UpdateInput, UpsertInput,
};
use hubsyncd::sandbox::{Endpoint, Fault, Property, Sandbox, Settings as World};

const CARS: &str = "2-77";
const LOST: Disposition = Disposition::Retry { unknown: true };
const AGAIN: Disposition = Disposition::Retry { unknown: false };

async fn sandbox(settings: World) -> Sandbox {
    let sandbox = Sandbox::start(settings).await.unwrap();
    let plate = Property::string("plate").unique();
    sandbox
        .world()
        .define(CARS, "cars", [plate, Property::number("price")]);
    sandbox.world().associate_types(CARS, "0-1");
    sandbox
}

fn client_with(sandbox: &Sandbox, budget: Budget) -> Client {
    Client::new(Settings {
        base_url: sandbox.base_url(),
        api_version: "2026-09".to_owned(),
        token: sandbox.token().to_owned().into(),
        timeout: Duration::from_secs(2),
        budget,
        observer: std::sync::Arc::new(|_| {}),
    })
    .unwrap()
}

fn client(sandbox: &Sandbox) -> Client {
    let window = Duration::from_secs(10);
    client_with(
        sandbox,
        Budget {
            requests: 100_000,
            window,
            in_flight: 8,
        },
    )
}

async fn world_and_client() -> (Sandbox, Client) {
    let sandbox = sandbox(World::default()).await;
    let client = client(&sandbox);
    (sandbox, client)
}

/// Cars by plate and price.
async fn upsert_cars(client: &Client, cars: &[(&str, &str)]) -> Result<BatchReply, Failed> {
    let properties: Vec<String> = cars
        .iter()
        .map(|(plate, price)| serde_json::json!({ "plate": plate, "price": price }).to_string())
        .collect();
    let traces: Vec<String> = (0..cars.len()).map(|at| format!("t{at}")).collect();
    let inputs: Vec<UpsertInput<'_>> = (0..cars.len())
        .map(|at| UpsertInput {
            trace: &traces[at],
            match_value: cars[at].0,
            properties: &properties[at],
        })
        .collect();
    client
        .upsert(client.pace().slot(Lane::Change).await, CARS, "plate", &inputs)
        .await
}

#[tokio::test]
async fn an_upsert_makes_then_finds_and_names_each_by_trace_and_key() {
    let (_sandbox, client) = world_and_client().await;
    let cars = [("A-1", "10"), ("B-2", "20"), ("C-3", "30")];
    let made = upsert_cars(&client, &cars).await.unwrap();
    assert!(made.errors.is_empty());
    for done in &made.results {
        assert_eq!(done.new, Some(true));
        let at: usize = done.trace.as_ref().unwrap()[1..].parse().unwrap();
        assert_eq!(done.properties["plate"].as_deref(), Some(cars[at].0));
    }
    let found = upsert_cars(&client, &cars).await.unwrap();
    assert!(found.results.iter().all(|done| done.new == Some(false)));
    let ids = |reply: &BatchReply| {
        let mut ids: Vec<_> = reply.results.iter().map(|done| done.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&made), ids(&found));
    assert_eq!(made.results.len(), 3);
}

#[tokio::test]
async fn pitfall_5_airbyte_207_one_bad_record_fails_alone_and_is_named_with_its_property_and_without_its_value()
 {
    let (sandbox, client) = world_and_client().await;
    let reply = upsert_cars(&client, &[("A-1", "10"), ("B-2", "cheap"), ("C-3", "30")])
        .await
        .unwrap();
    assert_eq!(reply.results.len(), 2);
    let error = &reply.errors[0];
    assert_eq!(error.traces, ["t1"]);
    assert_eq!(error.category, "VALIDATION_ERROR");
    assert_eq!(error.properties, ["price"]);
    assert!(!format!("{error:?}").contains("cheap"), "{error:?}");
    assert!(reply.correlation_id.is_some());
    assert_eq!(sandbox.world().records(CARS).count(), 2);
}

#[tokio::test]
async fn a_unique_value_that_another_record_holds_names_that_record() {
    let (sandbox, client) = world_and_client().await;
    let first = sandbox.world().create(CARS, [("plate", "A-1")]);
    let second = sandbox.world().create(CARS, [("plate", "B-2")]);
    let input = UpdateInput {
        trace: "t",
        id: &second,
        properties: r#"{"plate":"A-1"}"#,
    };
    let slot = client.pace().slot(Lane::Change).await;
    let reply = client.update(slot, CARS, &[input]).await.unwrap();
    assert_eq!(reply.errors[0].existing_id.as_deref(), Some(first.as_str()));
    assert_eq!(reply.errors[0].properties, ["plate"]);
    assert!(!reply.errors[0].message.contains("A-1"));
}

#[tokio::test]
async fn an_update_names_what_is_gone_and_is_silent_about_what_was_merged() {
    let (sandbox, client) = world_and_client().await;
    let ids: Vec<String> = ["A", "B", "C", "D"]
        .iter()
        .map(|plate| sandbox.world().create(CARS, [("plate", *plate)]))
        .collect();
    assert!(sandbox.world().archive(CARS, &ids[1]));
    let survivor = sandbox.world().merge(CARS, &ids[3], &ids[2]).unwrap();
    let inputs: Vec<UpdateInput<'_>> = ids[..3]
        .iter()
        .zip(["t0", "t1", "t2"])
        .map(|(id, trace)| UpdateInput {
            trace,
            id,
            properties: r#"{"price":"7"}"#,
        })
        .collect();
    let slot = client.pace().slot(Lane::Change).await;
    let reply = client.update(slot, CARS, &inputs).await.unwrap();
    assert_eq!(reply.results.len(), 1);
    assert_eq!(reply.results[0].id, ids[0]);
    assert_eq!(reply.errors.len(), 1);
    assert!(reply.errors[0].is_not_found());
    assert!(reply.errors[0].traces == ["t1"] || reply.errors[0].ids == [ids[1].clone()]);

    let get = async |id: &str| {
        client
            .get(client.pace().probe(), CARS, id, &["plate"])
            .await
            .unwrap()
    };
    assert_eq!(get(&ids[2]).await.unwrap().id, survivor);
    assert!(get(&ids[1]).await.is_none());
    assert!(get("999999999999").await.is_none());
}

#[tokio::test]
async fn a_read_by_key_finds_what_exists_and_nothing_else() {
    let (sandbox, client) = world_and_client().await;
    let id = sandbox.world().create(CARS, [("plate", "A-1"), ("price", "5")]);
    for keys in [&["A-1", "Z-9"][..], &["Y-8", "Z-9"]] {
        let slot = client.pace().slot(Lane::Sweep).await;
        let found = client
            .read_by(slot, CARS, Some("plate"), keys, &["plate"])
            .await
            .unwrap();
        let expected: Vec<&String> = if keys.contains(&"A-1") { vec![&id] } else { vec![] };
        let ids: Vec<&String> = found.results.iter().map(|done| &done.id).collect();
        assert_eq!((ids, found.whole), (expected, true));
    }
    let slot = client.pace().slot(Lane::Sweep).await;
    let failed = client
        .read_by(slot, CARS, Some("price"), &["5", "6"], &[])
        .await
        .unwrap_err();
    assert_eq!(failed.disposition, Disposition::Split);
    assert_eq!(failed.said.unwrap().properties, ["price"]);
}

#[tokio::test]
async fn associations_are_made_read_and_refused() {
    let (sandbox, client) = world_and_client().await;
    let (label, _) = sandbox.world().label(CARS, "0-1", "Owner");
    let car = sandbox.world().create(CARS, [("plate", "A-1")]);
    let contact = sandbox.world().create("0-1", [("email", "ana@example.com")]);
    let pairs = [(car.as_str(), contact.as_str())];
    let slot = async || client.pace().slot(Lane::Change).await;

    for _ in 0..2 {
        let kind = AssociationKind::Default;
        let reply = client
            .associate(slot().await, CARS, "0-1", kind, &pairs)
            .await
            .unwrap();
        assert_eq!(reply.made, [(car.clone(), contact.clone())]);
    }
    let labels = client.labels(slot().await, CARS, "0-1").await.unwrap();
    assert!(labels.iter().any(|of| of.label.is_none()));
    let owner = labels
        .iter()
        .find(|of| of.label.as_deref() == Some("Owner"))
        .unwrap();
    assert_eq!(owner.type_id, i64::from(label));
    let types = [vec![owner.clone()]];
    let kind = AssociationKind::Labelled(&types);
    let reply = client
        .associate(slot().await, CARS, "0-1", kind, &pairs)
        .await
        .unwrap();
    assert_eq!(reply.made.len(), 1, "{reply:?}");

    let inputs = [
        ReadLinks {
            id: &car,
            after: None,
        },
        ReadLinks {
            id: "424242",
            after: None,
        },
    ];
    let page = client
        .read_associations(slot().await, CARS, "0-1", &inputs)
        .await
        .unwrap();
    assert_eq!(page.links.len(), 1);
    assert_eq!((&page.links[0].from, &page.links[0].to), (&car, &contact));
    let types: Vec<_> = page.links[0].types.iter().map(|of| of.label.as_deref()).collect();
    assert!(
        types.contains(&Some("Owner")) && types.contains(&None),
        "{types:?}"
    );
    assert!(page.errors.is_empty() && page.next.is_empty());

    let bad = [(car.as_str(), "424242")];
    let refused = client
        .associate(slot().await, CARS, "0-1", AssociationKind::Default, &bad)
        .await;
    assert!(refused.map_or(true, |reply| reply.made.is_empty() && !reply.errors.is_empty()));
}

#[tokio::test]
async fn properties_and_the_portal_are_told() {
    let (sandbox, client) = world_and_client().await;
    sandbox
        .world()
        .add_property(CARS, Property::string("score").read_only());
    let properties = client.properties(client.pace().probe(), CARS).await.unwrap();
    let named = |name: &str| properties.iter().find(|property| property.name == name).unwrap();
    assert!(named("plate").has_unique_value && !named("plate").read_only);
    assert_eq!(named("price").kind, "number");
    assert!(named("score").read_only);
    let account = client.account(client.pace().probe()).await.unwrap();
    assert_eq!(account.portal_id, 12_345_678);
    assert_eq!(account.time_zone.as_deref(), Some("US/Eastern"));
    assert!(
        account
            .utc_offset_seconds
            .is_some_and(|offset| offset == -4 * 3600 || offset == -5 * 3600)
    );
}

#[tokio::test]
async fn a_batch_that_is_refused_whole_is_split_and_a_single_record_rejected() {
    let (_sandbox, client) = world_and_client().await;
    let twice = upsert_cars(&client, &[("A-1", "1"), ("A-1", "2")])
        .await
        .unwrap_err();
    assert_eq!(twice.disposition, Disposition::Split);
    assert!(!twice.to_string().contains("A-1"), "{twice}");
    let input = UpsertInput {
        trace: "t",
        match_value: "5",
        properties: "{}",
    };
    let slot = client.pace().slot(Lane::Change).await;
    let alone = client.upsert(slot, CARS, "price", &[input]).await.unwrap_err();
    assert_eq!(alone.disposition, Disposition::Reject);
    assert_eq!(alone.refusal().properties, ["price"]);
    assert_eq!(alone.refusal().category, "validation_error");
}

#[tokio::test]
async fn every_fault_of_a_write_has_its_disposition_and_lost_ones_are_healed_by_sending_again() {
    let split = Disposition::Split;
    for (name, expected) in [
        ("lose-reply", LOST),
        ("refuse-connection", LOST),
        ("commit-then-500", LOST),
        ("commit-then-502", LOST),
        ("commit-then-504", LOST),
        ("commit-then-524", LOST),
        ("hang", LOST),
        ("500", LOST),
        ("503", LOST),
        ("503-html", LOST),
        ("truncated", LOST),
        ("no-json", LOST),
        ("half-json", LOST),
        ("empty-2xx", LOST),
        ("401", Disposition::Halt { token: true }),
        ("403", Disposition::Halt { token: false }),
        ("413", split),
        ("423", AGAIN),
        ("477", AGAIN),
        ("429-ten-secondly", AGAIN),
        ("429-secondly", AGAIN),
        ("429-daily", AGAIN),
    ] {
        let (sandbox, _) = world_and_client().await;
        let first = client(&sandbox);
        sandbox.fault(Fault::named(name).unwrap().on(Endpoint::Upsert));
        let cars = [("A-1", "1"), ("B-2", "2")];
        let failed = upsert_cars(&first, &cars).await.unwrap_err();
        assert_eq!(failed.disposition, expected, "{name}");
        // Another client, so that no pause is waited for.
        let healed = upsert_cars(&client(&sandbox), &cars).await.unwrap();
        assert_eq!(healed.results.len(), 2, "{name}");
        assert_eq!(
            sandbox.world().records(CARS).count(),
            2,
            "{name}: nothing doubled"
        );
    }
}

#[tokio::test]
async fn what_an_answer_leaves_out_is_in_neither_list() {
    for name in ["partial", "unreported", "empty-results"] {
        let (sandbox, client) = world_and_client().await;
        sandbox.fault(Fault::named(name).unwrap().on(Endpoint::Upsert));
        let reply = upsert_cars(&client, &[("A-1", "1"), ("B-2", "2")]).await.unwrap();
        assert!(reply.errors.is_empty(), "{name}");
        assert!(reply.results.len() < 2, "{name}");
    }
}

#[tokio::test]
async fn pitfall_1f_a_refusal_by_limit_pauses_all_lanes_for_as_long_as_it_says() {
    let (sandbox, client) = world_and_client().await;
    let second = Duration::from_secs(1);
    sandbox.fault(Fault::named("429-daily").unwrap().retry_after(second));
    let failed = upsert_cars(&client, &[("A-1", "1")]).await.unwrap_err();
    assert_eq!(failed.policy, Some(Policy::Daily));
    let since = std::time::Instant::now();
    upsert_cars(&client, &[("A-1", "1")]).await.unwrap();
    assert!(since.elapsed() >= second - Duration::from_millis(50));
    assert_eq!(sandbox.world().answered_with(429), 1);
}

#[tokio::test]
async fn pitfall_4_05_a_burst_over_the_limit_is_never_refused() {
    // Twelve at once where ten are allowed, and ninety of the window's hundred used by another program:
    // the headers say so.
    let sandbox = sandbox(World {
        requests_per_window: Some(100),
        ..World::default()
    })
    .await;
    sandbox.spend(90, 0);
    let window = Duration::from_secs(10);
    let client = client_with(
        &sandbox,
        Budget {
            requests: 100,
            window,
            in_flight: 4,
        },
    );
    upsert_cars(&client, &[("A-1", "1")]).await.unwrap();
    let burst = (0..12).map(|_| async {
        let slot = tokio::time::timeout(Duration::from_secs(1), client.pace().slot(Lane::Change)).await;
        match slot {
            Ok(slot) => client.properties(slot, CARS).await.is_ok(),
            Err(_) => false,
        }
    });
    let sent = futures::future::join_all(burst)
        .await
        .into_iter()
        .filter(|sent| *sent)
        .count();
    assert_eq!(sandbox.world().answered_with(429), 0);
    assert!((5..=9).contains(&sent), "{sent} of the nine left were used");
}
