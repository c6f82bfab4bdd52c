//! `hubsyncd man`: the manual page, made from the same definition as the arguments, on stdout.

use super::failure::{Failure, print};
use crate::daemon::exit;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io;

/// The section of programs for administrators.
const SECTION: &str = "8";

/// The exit codes, as the verbs use them.
const CODES: [(u8, &str); 8] = [
    (exit::OK, "All is well."),
    (
        exit::NO,
        "The answer is no: unhealthy, a sweep with refused records, a pull with records that could not be stored, a demo whose ends differ.",
    ),
    (exit::USAGE, "The command line is wrong."),
    (
        exit::UNAVAILABLE,
        "Something needed is not there: the daemon, the database, a program.",
    ),
    (exit::SOFTWARE, "A fault of the program."),
    (
        exit::TRY_AGAIN,
        "It may work later: a lock, a sweep that ended incomplete, a pull that was cut short.",
    ),
    (exit::NOT_PERMITTED, "A right is missing, or a login is refused."),
    (
        exit::CONFIGURATION,
        "The configuration, the schema or the mapping is wrong; starting again is no use.",
    ),
];

const SIGNALS: [(&str, &str); 3] = [
    (
        "SIGUSR1",
        "Sweep now; while a sweep runs, exactly one more after it.",
    ),
    ("SIGHUP", "Take a changed configuration, like the verb reload."),
    (
        "SIGTERM, SIGINT",
        "Finish what is between HubSpot's answer and its receipt, then stop. A second one stops at once.",
    ),
];

const ENVIRONMENT: [(&str, &str); 5] = [
    (
        "DATABASE_URL, HUBSPOT_ACCESS_TOKEN, CRON_SECRET",
        "The secrets, where no systemd credential (database-url, hubspot-access-token, cron-secret) and no file named by the \
         same name with _FILE holds them.",
    ),
    ("HUBSPOT_BASE_URL, HUBSYNCD_SOCKET", "Override the file."),
    ("HUBSYNCD_CONFIG", "The configuration file, like --config."),
    ("RUST_LOG", "What is logged; by default info."),
    ("NO_COLOR", "Set to anything: no colour on a terminal."),
];

const FILES: [(&str, &str); 4] = [
    (
        "/etc/hubsyncd/hubsyncd.toml",
        "The configuration; the file that the package brings lists every setting with its default.",
    ),
    (
        "/etc/hubsyncd/credentials/",
        "The secrets that the unit hands to the daemon, one a file.",
    ),
    (
        "/run/hubsyncd/hubsyncd.sock",
        "The daemon's socket, HTTP; members of the group hubsyncd may use it.",
    ),
    (
        "/usr/share/doc/hubsyncd/README.md",
        "How it works, what it promises, and the runbook.",
    ),
];

/// Prints the page.
pub(super) fn run() -> Result<u8, Failure> {
    let page = page(super::command()).map_err(|error| {
        Failure::new(
            exit::SOFTWARE,
            anyhow::Error::new(error).context("writing the manual page"),
        )
    })?;
    print(&page)?;
    Ok(exit::OK)
}

fn page(mut command: Command) -> io::Result<String> {
    command.build();
    let mut out = Vec::new();
    let man = Man::new(command.clone()).section(SECTION);
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    Roff::new().control("SH", ["VERBS"]).to_writer(&mut out)?;
    for verb in command.get_subcommands() {
        of_verb(verb, &mut out)?;
    }
    terms("SIGNALS", SIGNALS, &mut out)?;
    let codes = CODES.map(|(code, words)| (code.to_string(), words));
    terms("EXIT STATUS", codes, &mut out)?;
    terms("ENVIRONMENT", ENVIRONMENT, &mut out)?;
    terms("FILES", FILES, &mut out)?;
    Ok(with_one_preamble(&String::from_utf8_lossy(&out)))
}

/// Every section was rendered as a page of its own, with the definitions that a page begins with.
fn with_one_preamble(text: &str) -> String {
    let mut seen = Vec::new();
    let mut page = String::new();
    for line in text.lines() {
        let defines = line.starts_with(".ie ") || line.starts_with(".el ");
        if !(defines && seen.contains(&line)) {
            page.push_str(line);
            page.push('\n');
        }
        if defines {
            seen.push(line);
        }
    }
    page
}

/// A verb and the verbs below it: what it does, how it is called, its own options.
fn of_verb(verb: &Command, out: &mut Vec<u8>) -> io::Result<()> {
    if verb.get_name() == "help" {
        return Ok(());
    }
    let name = verb.get_bin_name().unwrap_or(verb.get_name());
    let mut head = Roff::new();
    head.control("SS", [name]);
    head.text([roman(about(verb))]);
    head.to_writer(out)?;
    // What every verb takes is told once, at the top.
    let told: Vec<String> = verb
        .get_arguments()
        .filter(|argument| argument.is_global_set() || argument.get_id() == "help")
        .map(|argument| argument.get_id().to_string())
        .collect();
    let mut own = verb.clone();
    for argument in told {
        own = own.mut_arg(argument, |argument| argument.hide(true));
    }
    let man = Man::new(own.clone());
    if own.get_arguments().any(|argument| !argument.is_hide_set()) {
        out.extend(below(|out| man.render_options_section(out))?);
    }
    for deeper in verb.get_subcommands() {
        of_verb(deeper, out)?;
    }
    Ok(())
}

/// A section without its heading, so that it stands below a verb's.
fn below(render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut rendered = Vec::new();
    render(&mut rendered)?;
    let text = String::from_utf8_lossy(&rendered);
    let lines = text.lines().filter(|line| !line.starts_with(".SH "));
    Ok(lines
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .into_bytes())
}

fn about(verb: &Command) -> String {
    let about = verb.get_long_about().or(verb.get_about());
    about.map(|about| format!("{about}.")).unwrap_or_default()
}

/// A section of words and what they mean.
fn terms<'w, W: Into<String>>(
    heading: &str,
    words: impl IntoIterator<Item = (W, &'w str)>,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let mut section = Roff::new();
    section.control("SH", [heading]);
    for (word, meaning) in words {
        section.control("TP", []);
        section.text([bold(word.into())]);
        section.text([roman(meaning)]);
    }
    section.to_writer(out)
}
