//! Where PostgreSQL's programs are, and as whom they can be run.

use super::ClusterError;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A unix socket's path may have 107 bytes; `/hubsyncd-XXXXXX/.s.PGSQL.5432` takes 30 of them.
const TEMP_DIR_BYTES_MAX: usize = 77;

/// The user who runs the server where we are root: the first of these that exists.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// The user who runs the server in our stead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Where `initdb` and `postgres` are: `HUBSYNCD_PG_BIN`, `pg_config`, `PATH`, the packages' directories.
///
/// # Errors
/// [`ClusterError::Missing`], or [`ClusterError::NotThere`] if the variable names another place.
pub fn find_programs() -> Result<PathBuf, ClusterError> {
    if let Some(bin) = std::env::var_os("HUBSYNCD_PG_BIN").map(PathBuf::from) {
        return if complete(&bin) {
            Ok(bin)
        } else {
            Err(ClusterError::NotThere(bin))
        };
    }
    let by_config = Command::new("pg_config")
        .arg("--bindir")
        .stderr(Stdio::null())
        .output();
    let by_config = by_config
        .ok()
        .map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    by_config
        .into_iter()
        .chain(std::env::split_paths(&path).filter_map(|dir| real_directory(&dir)))
        .chain(packaged("/usr/lib/postgresql", "", "/bin"))
        .chain(packaged("/usr", "pgsql-", "/bin"))
        .find(|bin| complete(bin))
        .ok_or(ClusterError::Missing)
}

/// Whether both programs are in a directory.
pub(super) fn complete(bin: &Path) -> bool {
    bin.is_absolute() && bin.join("initdb").is_file() && bin.join("postgres").is_file()
}

/// The directory in which the `initdb` of a `PATH` entry really is, behind links.
fn real_directory(entry: &Path) -> Option<PathBuf> {
    let program = fs::canonicalize(entry.join("initdb")).ok()?;
    program.parent().map(Path::to_owned)
}

/// The directories `parent/<prefix>VERSION<suffix>`, the highest version first.
fn packaged(parent: &str, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.parse().ok()?;
            Some((version, PathBuf::from(format!("{parent}/{name}{suffix}"))))
        })
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, bin)| bin).collect()
}

/// Where the cluster's directory is made: root's server runs as another user, who may not see `TMPDIR`.
pub(super) fn temp_dir(as_other_user: bool) -> OsString {
    let dir = std::env::temp_dir();
    if as_other_user || !dir.is_absolute() || dir.as_os_str().len() > TEMP_DIR_BYTES_MAX {
        return "/tmp".into();
    }
    dir.into_os_string()
}

/// Copies programs that the server's user cannot reach, e.g. below root's home, to `postgresql` in the cluster's
/// directory, where the guard looks for them then.
pub(super) fn copy_unreachable(bin: &Path, owner: Owner, directory: &Path) -> Result<(), ClusterError> {
    let doing = "copying PostgreSQL to where its user can run it";
    let run = |command: &mut Command| {
        command
            .status()
            .map_err(|source| ClusterError::Io { doing, source })
    };
    let mut reachable = Command::new("test");
    reachable
        .arg("-x")
        .arg(bin.join("initdb"))
        .current_dir("/")
        .uid(owner.uid)
        .gid(owner.gid);
    if run(&mut reachable)?.success() {
        return Ok(());
    }
    let copy = directory.join("postgresql");
    fs::create_dir(&copy).map_err(|source| ClusterError::Io { doing, source })?;
    let parts = ["bin", "lib", "share"].map(|part| bin.with_file_name(part));
    let copied = run(Command::new("cp").arg("-R").args(&parts).arg(&copy))?;
    let to = format!("{}:{}", owner.uid, owner.gid);
    let given = run(Command::new("chown").args(["-hR", &to]).arg(&copy))?;
    if copied.success() && given.success() {
        return Ok(());
    }
    let source = io::Error::other(format!("bin, lib and share beside {} are wanted", bin.display()));
    Err(ClusterError::Io { doing, source })
}

/// Whom the server runs as; `None` is ourselves.
pub(super) fn unprivileged_user() -> Result<Option<Owner>, ClusterError> {
    if id(&["-u"])? != Some(0) {
        return Ok(None);
    }
    for user in USERS {
        if let (Some(uid), Some(gid)) = (id(&["-u", user])?, id(&["-g", user])?) {
            return Ok(Some(Owner { uid, gid }));
        }
    }
    let source =
        io::Error::other("PostgreSQL refuses to run as root, and there is no user postgres or nobody");
    Err(ClusterError::Io {
        doing: "choosing a user",
        source,
    })
}

/// What `id` says; `None` if there is no such user.
fn id(arguments: &[&str]) -> Result<Option<u32>, ClusterError> {
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output();
    let output = output.map_err(|source| ClusterError::Io {
        doing: "asking id for a user",
        source,
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
}
