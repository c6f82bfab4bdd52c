//! A verb that goes on while the test looks.

use super::daemon::Stage;
use super::wait_until;

/// A verb that goes on, and what it prints.
pub struct Going {
    /// Its process.
    pub child: std::process::Child,
    said: tempfile::NamedTempFile,
}

impl Going {
    /// Begins it.
    pub fn begin(stage: &Stage, arguments: &[&str]) -> Going {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = stage.command("daemon");
        command.args(arguments);
        command.stdout(said.reopen().unwrap());
        // At the end of what the other stream has said.
        let errors = std::fs::OpenOptions::new()
            .append(true)
            .open(said.path())
            .unwrap();
        command.stderr(errors);
        Going {
            child: command.spawn().unwrap(),
            said,
        }
    }

    /// What it has said so far, on both streams.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.said.path()).unwrap()
    }

    /// Waits until it says this.
    pub async fn says(&self, words: &str) {
        wait_until(words, async || self.said().contains(words)).await;
    }

    /// Waits for its end; answers its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        wait_until("the verb ends", async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code()
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
