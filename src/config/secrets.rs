//! Where secrets come from: systemd credentials, files named by the environment, the environment.

use super::Environment;
use super::section::{Fault, Findings};
use secrecy::SecretString;
use std::path::{Path, PathBuf};

/// The first of: the systemd credential, the file that `NAME_FILE` names, the variable `NAME`. A source that is
/// named but cannot be read is a problem and does not fall through to the next.
pub(super) fn find(
    name: &str,
    environment: Environment<'_>,
    findings: &Findings<'_>,
) -> Option<SecretString> {
    let credential = name.to_lowercase().replace('_', "-");
    if let Some(directory) = environment("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty()) {
        let path = PathBuf::from(directory).join(&credential);
        if path.exists() {
            return read(name, "systemd credential", &path, findings);
        }
    }
    let file_variable = format!("{name}_FILE");
    if let Some(path) = environment(&file_variable).filter(|path| !path.is_empty()) {
        return read(&file_variable, "environment", Path::new(&path), findings);
    }
    let value = environment(name).filter(|value| !value.is_empty())?;
    if value.trim().is_empty() {
        let fault = Fault::new("holds nothing but blanks", where_to_put(name));
        findings.elsewhere("environment", name, fault);
        return None;
    }
    Some(SecretString::from(value.trim().to_owned()))
}

/// Reads a file that holds one secret; white space around it is not part of it.
fn read(name: &str, origin: &str, path: &Path, findings: &Findings<'_>) -> Option<SecretString> {
    let fault = match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Fault::new(
            format!("the file {} is empty", path.display()),
            "it must hold the secret and nothing else",
        ),
        Ok(text) => return Some(SecretString::from(text.trim().to_owned())),
        Err(error) => Fault::new(
            format!("the file {} cannot be read: {error}", path.display()),
            "it must be readable by the daemon's user",
        ),
    };
    findings.elsewhere(origin, name, fault);
    None
}

/// Where a missing secret may be put.
pub(super) fn where_to_put(name: &str) -> String {
    let credential = name.to_lowercase().replace('_', "-");
    format!("set {name}, {name}_FILE or the systemd credential `{credential}`")
}
