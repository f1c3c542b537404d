//! The test runner of programs that fork: one thread, one test after the other.

use std::process::ExitCode;

/// A test's name, and the test.
pub(crate) type Test = (&'static str, fn());

/// Runs the tests in order; the first that panics ends the program.
pub(crate) fn run(tests: &[Test]) -> ExitCode {
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        tests.len()
    );
    ExitCode::SUCCESS
}
