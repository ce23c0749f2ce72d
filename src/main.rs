//! Arguments to command to exit code.

fn main() -> std::process::ExitCode {
    execwatch::cli::main()
}
