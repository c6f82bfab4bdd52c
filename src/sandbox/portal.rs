//! A portal without a port: requests are handed over as values and answered at once, in the caller's thread.
//!
//! Its clock stands until it is moved, so that what it answers depends on its seed and on what it was asked and on
//! nothing else. What takes time in the served sandbox (latency, faults that delay or hold) is the caller's to play.

use super::clock::Clock;
use super::control::PREFIX;
use super::fault::Fault;
use super::http::{Delivery, Incoming, enveloped, exchange};
use super::world::World;
use super::{Settings, Shared, standard};
use axum::body::Bytes;
use axum::http::{HeaderMap, Response, Uri};
use futures::FutureExt;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

/// A world that answers requests without a connection.
#[derive(Debug)]
pub struct Portal {
    shared: Arc<Shared>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Delivered {
    /// The whole answer.
    Whole(Response<String>),
    /// An answer whose body ends half-way, and the connection with it.
    Truncated(Response<String>),
    /// The connection ends without an answer.
    Cut,
    /// The connection stays open and silent.
    Never,
}

impl Portal {
    /// A portal with contacts, companies and deals, empty; its clock stands at `now_ms`, milliseconds since 1970.
    pub fn new(settings: Settings, now_ms: i64) -> Portal {
        let settings = Settings {
            latency: Duration::ZERO,
            ..settings
        };
        Portal {
            shared: Arc::new(Shared::around(settings, Clock::standing(now_ms))),
        }
    }

    /// The same with the tutoring application's objects.
    pub fn tutoring(settings: Settings, now_ms: i64) -> Portal {
        let portal = Portal::new(settings, now_ms);
        standard::furnish_tutoring(&mut portal.world());
        portal
    }

    /// Answers a request, struck by a fault if one waits for it.
    ///
    /// # Errors
    /// If `target` is no path with query, or one of the sandbox's own routes.
    pub fn ask(&self, method: &str, target: &str, headers: HeaderMap, body: Bytes) -> io::Result<Delivered> {
        let uri: Uri = target.parse().map_err(io::Error::other)?;
        if uri.path().starts_with(PREFIX) {
            return Err(io::Error::other("the sandbox's own routes need a port"));
        }
        let incoming = Incoming {
            method: method.to_owned(),
            uri,
            headers,
            body,
        };
        let carried = exchange(Arc::clone(&self.shared), incoming).now_or_never();
        Ok(match carried {
            Some((Delivery::Whole(reply), headers)) => Delivered::Whole(enveloped(reply, headers)),
            Some((Delivery::Truncated(reply), headers)) => {
                let (parts, text) = enveloped(reply, headers).into_parts();
                let half = text.chars().take(text.chars().count() / 2).collect();
                Delivered::Truncated(Response::from_parts(parts, half))
            }
            Some((Delivery::Cut, _)) => Delivered::Cut,
            // A fault that takes time has none here.
            Some((Delivery::Never, _)) | None => Delivered::Never,
        })
    }

    /// The world.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    /// Queues a fault for the first request that it covers.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults().add(fault);
    }

    /// Refuses writes to the records whose property has this value, as [`super::Sandbox::refuse_record`].
    ///
    /// # Panics
    /// If the type was never defined.
    pub fn refuse_record(&self, object: &str, property: &str, value: &str, times: Option<u32>) {
        self.world()
            .refuse_record(object, property, value, times)
            .expect("the object type was defined");
    }

    /// Forgets all faults and rules of refusal.
    pub fn clear_faults(&self) {
        self.shared.clear_faults();
    }

    /// Moves the clock ahead to this time, milliseconds since 1970; it never goes back.
    pub fn set_clock(&self, now_ms: i64) {
        let ahead = now_ms.saturating_sub(self.shared.clock.now_ms());
        let ahead = u64::try_from(ahead).unwrap_or_default();
        self.shared.clock.advance(Duration::from_millis(ahead));
    }

    /// Uses up requests of the window and of the day, as another integration of the portal would.
    pub fn spend(&self, of_window: u32, of_day: u32) {
        let now_ms = self.shared.clock.now_ms();
        self.shared.limits().spend(of_window, of_day, now_ms);
    }
}
