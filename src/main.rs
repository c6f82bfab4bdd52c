//! Arguments → configuration → verb → exit code.

fn main() -> std::process::ExitCode {
    hubsyncd::cli::main()
}
