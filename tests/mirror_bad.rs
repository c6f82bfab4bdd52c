//! What HubSpot may answer and should not: the pass says so, loses nothing, and goes on.

use crate::support::mirroring::{assert_counted, assert_same, pulled, standing, sync};
use hubsyncd::sandbox::{Endpoint, Fault};
use serde_json::Value;

#[tokio::test]
async fn a_list_that_repeats_or_forgets_its_cursor_is_listed_anew_and_then_given_up_with_a_reason() {
    let (stage, daemon) = standing("mirror_repeats", 250).await;
    for (fault, said) in [
        ("repeated-page", "repeats a page"),
        ("unknown-cursor", "invalid or has expired"),
    ] {
        stage.sandbox.world().create("0-1", [("firstname", fault)]);
        stage
            .sandbox
            .fault(Fault::named(fault).unwrap().on(Endpoint::List).after(1));
        pulled(&daemon, "contacts").await;
        assert_same(&stage).await;
        stage
            .sandbox
            .fault(Fault::named(fault).unwrap().on(Endpoint::List).after(1));
        let body = pulled(&daemon, "contacts?limit=150").await;
        assert_eq!((&body["synced"], &body["updated"]), (&0.into(), &150.into()));
        // Again and again:
        stage
            .sandbox
            .fault(Fault::named(fault).unwrap().on(Endpoint::List).after(1).always());
        let (status, body) = sync(&daemon, "contacts").await;
        assert_eq!((status, &body["success"]), (502, &Value::Bool(false)), "{body}");
        assert!(body["error"].as_str().unwrap().contains(said), "{body}");
        assert_same(&stage).await;
        stage.sandbox.clear_faults();
        pulled(&daemon, "contacts").await;
        assert_same(&stage).await;
    }
}

#[tokio::test]
async fn what_passes_is_waited_for_and_asked_again() {
    let (stage, daemon) = standing("mirror_passes", 250).await;
    for fault in [
        "500",
        "503-html",
        "truncated",
        "half-json",
        "no-json",
        "429-secondly",
        "lose-reply",
        "423",
    ] {
        stage.sandbox.world().create("0-1", [("firstname", fault)]);
        stage
            .sandbox
            .fault(Fault::named(fault).unwrap().on(Endpoint::List).after(1));
        pulled(&daemon, "contacts").await;
        assert_eq!(stage.sandbox.faults_waiting(), 0, "{fault}");
    }
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_refused_token_cuts_the_pass_with_a_reason_and_it_goes_on_from_its_cursor() {
    let (stage, daemon) = standing("mirror_401", 350).await;
    stage
        .sandbox
        .fault(Fault::named("401").unwrap().on(Endpoint::List).after(2));
    let (status, body) = sync(&daemon, "contacts").await;
    assert_eq!((status, &body["success"]), (502, &Value::Bool(false)), "{body}");
    assert!(body["error"].as_str().unwrap().contains("401"), "{body}");
    assert_eq!(body["updated"], 200, "{body}");
    let listed = "SELECT listed FROM hubsyncd.mirror_state WHERE kind = 'contacts'";
    assert_eq!(stage.value(listed).await.as_deref(), Some("200"));
    let body = pulled(&daemon, "contacts").await;
    assert_eq!(body["updated"], 150, "{body}");
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_poisoned_record_is_an_error_with_a_message_and_costs_nobody_else() {
    let (stage, daemon) = standing("mirror_poison", 30).await;
    let (poisoned, huge, mistyped, undated) = {
        let mut world = stage.sandbox.world();
        (
            world.create("0-1", [("firstname", "a\u{0}b"), ("email", "nul@example.com")]),
            world.create("0-1", [("company", "x".repeat(60_000).as_str())]),
            world.create("0-3", [("dealname", "Odd"), ("amount", "a lot")]),
            world.create(
                "0-3",
                [("dealname", "Late"), ("closedate", "2026-02-30T00:00:00Z")],
            ),
        )
    };
    let body = pulled(&daemon, "all").await;
    assert_eq!(body["errors"], 3, "{body}");
    let messages = body["errorMessages"].to_string();
    for (id, said) in [
        (&poisoned, "character"),
        (&mistyped, "property amount: not the number"),
        (&undated, "property closedate: not the datetime"),
    ] {
        assert!(
            messages.contains(id.as_str()) && messages.contains(said),
            "{messages}"
        );
    }
    assert!(
        !messages.contains("a lot") && !messages.contains("02-30"),
        "no values: {messages}"
    );
    let of = |kind: &str, what: &str, id: &str| {
        format!("SELECT {what} FROM hubsyncd.mirror_{kind} WHERE hubspot_id = '{id}'")
    };
    assert_eq!(
        stage
            .value(&of("contacts", "sync_status", &poisoned))
            .await
            .as_deref(),
        Some("error")
    );
    assert_eq!(
        stage
            .value(&of("contacts", "sync_status", &huge))
            .await
            .as_deref(),
        Some("synced")
    );
    assert_eq!(
        stage
            .value(&of(
                "deals",
                "sync_status || ' ' || (properties ->> 'amount')",
                &mistyped
            ))
            .await
            .as_deref(),
        Some("error a lot")
    );
    assert_eq!(
        stage.value(&of("deals", "dealname", &undated)).await.as_deref(),
        Some("Late")
    );
    assert_counted(&stage).await;
    // What was put right is right again.
    {
        let mut world = stage.sandbox.world();
        world.set("0-1", &poisoned, "firstname", "Ana");
        world.set("0-3", &mistyped, "amount", "12.50");
        world.set("0-3", &undated, "closedate", "2026-02-28T00:00:00Z");
    }
    let body = pulled(&daemon, "all").await;
    assert_eq!(body["errors"], 0, "{body}");
    assert_eq!(
        stage.value(&of("deals", "amount", &mistyped)).await.as_deref(),
        Some("12.50")
    );
    assert_same(&stage).await;
}

#[tokio::test]
async fn records_without_id_twice_or_with_odd_values_do_not_stop_the_page() {
    let (stage, daemon) = standing("mirror_odd", 120).await;
    for (fault, said) in [
        ("record-without-id", Some("no id")),
        ("repeated-record", None),
        ("mistyped-property", Some("no single value")),
        ("mistyped-date", Some("updatedAt")),
    ] {
        stage
            .sandbox
            .fault(Fault::named(fault).unwrap().on(Endpoint::List));
        let body = pulled(&daemon, "contacts").await;
        let errors = usize::from(said.is_some());
        assert_eq!(body["errors"], errors, "{fault}: {body}");
        if let Some(said) = said {
            assert!(
                body["errorMessages"].to_string().contains(said),
                "{fault}: {body}"
            );
        }
        assert_counted(&stage).await;
    }
    pulled(&daemon, "contacts").await;
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_record_that_somebodys_index_refuses_is_an_error_alone() {
    let (stage, daemon) = standing("mirror_index", 120).await;
    stage
        .sql("CREATE INDEX ON hubsyncd.mirror_contacts (company)")
        .await;
    // Random enough that it cannot be packed into an index entry.
    let long: String = (0..9_000u32)
        .map(|at| char::from_u32(0x4E00 + (at.wrapping_mul(2_654_435_761) >> 12) % 20_000).unwrap())
        .collect();
    let id = stage.sandbox.world().create("0-1", [("company", long.as_str())]);
    let body = pulled(&daemon, "contacts").await;
    assert_eq!(
        (&body["errors"], &body["synced"], &body["updated"]),
        (&1.into(), &1.into(), &120.into()),
        "{body}"
    );
    assert_eq!(
        stage
            .value(&format!(
                "SELECT sync_status FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{id}'"
            ))
            .await
            .as_deref(),
        Some("error")
    );
    assert_counted(&stage).await;
}
