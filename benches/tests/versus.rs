//! The program as its users call it: small runs of the suites that start processes.

use std::process::Command;

use serde_json::Value;

/// What one turn says of the rows whose names contain `only`: the rows of the last line.
fn rows_of(only: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_versus"))
        .args(["--json", "--reps", "1", "--only", only])
        .output()
        .expect("it starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let last = text.lines().last().expect("a table");
    let Value::Array(rows) = &serde_json::from_str::<Value>(last).expect("JSON")["rows"] else {
        panic!("no rows: {last}");
    };
    rows.clone()
}

/// That there are just these, each with a ratio.
fn check(only: &str, expected: &[&str]) {
    let rows = rows_of(only);
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["bench"].as_str().unwrap())
        .collect();
    assert_eq!(names, expected);
    for row in &rows {
        assert!(
            row["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0),
            "{row}"
        );
    }
}

#[test]
fn an_echo_server_is_measured_in_three_ways() {
    let expected = [
        "echo_64x64/throughput",
        "echo_64x64/p99",
        "echo_64x64/cpu_per_request",
    ];
    check("echo_64x64", &expected);
}

#[test]
fn of_a_server_only_the_rows_that_are_asked_for_are_printed() {
    check("hyper_64/p99", &["hyper_64/p99"]);
}

#[test]
fn timers_and_tails_are_measured() {
    check(
        "timers_idle/p50,sliced/p99",
        &["timers_idle/p50", "sliced/p99"],
    );
}
