//! `hubsyncd plan`: what a sweep would do, by reads alone.

use super::failure::{Failure, print};
use super::paint::{Colour, aligned, paint, tamed};
use super::{Surroundings, configuration};
use crate::config::Needs;
use crate::daemon::exit;
use crate::daemon::outlook::plan::{self, Plan};
use std::io::{IsTerminal, Write};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Tells what a sweep would do.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let config = configuration(surroundings, Needs::Everything)?;
    let watched = std::io::stderr().is_terminal();
    let mut progress = |object: &str, rows: u64| {
        if watched {
            // There is nobody to tell if stderr is gone.
            let _ = write!(std::io::stderr(), "\r\x1b[K{object}: {rows} rows");
        }
    };
    let planned = plan::plan(config, &mut progress).await;
    if watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let plan = planned?;
    let text = if arguments.json {
        let json = serde_json::to_string(&plan);
        json.map_err(|error| Failure::new(exit::SOFTWARE, anyhow::Error::new(error)))? + "\n"
    } else {
        tamed(&shown(&plan))
    };
    print(&text)?;
    Ok(exit::OK)
}

fn shown(plan: &Plan) -> String {
    let heads = [
        "OBJECT",
        "ROWS",
        "CREATE",
        "TAKE OVER",
        "UPDATE",
        "DIFFERING",
        "LINK",
        "UNLINK",
        "REFUSE",
        "LEAVE",
        "WAIT",
    ];
    let rows = plan.objects.iter().map(|object| {
        let tally = &object.tally;
        let counts = [
            tally.rows,
            tally.create,
            tally.adopt,
            tally.update,
            tally.differing,
            tally.link,
            tally.unlink,
            tally.refuse,
            tally.leave,
            tally.wait,
        ];
        let counts = counts.iter().map(u64::to_string);
        std::iter::once(object.name.clone()).chain(counts).collect()
    });
    let mut text = aligned(&heads, &rows.collect::<Vec<Vec<String>>>());
    for object in &plan.objects {
        for refused in &object.tally.examples {
            let words = format!(
                "refused  {} {}: {}: {}",
                object.name, refused.key, refused.category, refused.message
            );
            text.push_str(&paint(&words, Colour::Doubtful));
            text.push('\n');
        }
        let told = object.tally.examples.len() as u64;
        if object.tally.refuse > told {
            text.push_str(&format!(
                "refused  {} {} more\n",
                object.name,
                object.tally.refuse - told
            ));
        }
        if object.tally.refused_before > 0 {
            let rows = match object.tally.refused_before {
                1 => "1 row was refused the last time, and is tried again".to_owned(),
                many => format!("{many} rows were refused the last time, and are tried again"),
            };
            text.push_str(&format!(
                "note     {}: {rows} (see: hubsyncd failures)\n",
                object.name
            ));
        }
    }
    let searches = match plan.searches {
        0 => String::new(),
        searches => format!(" and {searches} searches"),
    };
    let lasts = humantime::format_duration(Duration::from_secs(plan.seconds));
    text.push_str(&format!(
        "cost     about {} requests{searches}, {lasts} at least; this plan took {} requests, and wrote nothing\n",
        plan.requests, plan.asked
    ));
    text
}
