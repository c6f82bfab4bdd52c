//! A unix socket that is never there with the wrong permissions, and never taken from a daemon that lives.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// A bound socket; its file goes when it is dropped, if it is still ours.
#[derive(Debug)]
pub(super) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl UnixSocket {
    /// Binds under a temporary name, sets the mode, and renames: nobody can connect before the mode stands.
    pub(super) fn bind(path: &Path, mode: u32) -> io::Result<UnixSocket> {
        let named = |error: io::Error| {
            let words = format!("the socket {} cannot be bound: {error}", path.display());
            io::Error::new(error.kind(), words)
        };
        make_directory(path).map_err(named)?;
        refuse_if_alive(path).map_err(named)?;
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(".new");
        let hidden = PathBuf::from(hidden);
        if hidden.exists() {
            std::fs::remove_file(&hidden).map_err(named)?;
        }
        let listener = UnixListener::bind(&hidden).map_err(named)?;
        let placed = std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(mode))
            .and_then(|()| std::fs::rename(&hidden, path))
            .and_then(|()| std::fs::symlink_metadata(path));
        match placed {
            Ok(file) => Ok(UnixSocket {
                listener,
                path: path.to_owned(),
                inode: file.ino(),
            }),
            Err(error) => {
                let _ = std::fs::remove_file(&hidden);
                Err(named(error))
            }
        }
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket's own directory (`/run/hubsyncd` without systemd); its parent must be there.
fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.exists() => {
            std::fs::create_dir(directory)?;
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))
        }
        _ => Ok(()),
    }
}

/// A file may be replaced only if it is a socket on which nobody listens.
fn refuse_if_alive(path: &Path) -> io::Result<()> {
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        let words = "a file that is no socket is in the way";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another daemon listens on it",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}
