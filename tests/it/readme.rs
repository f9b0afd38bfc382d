//! The README shows the difference between two programs: it is the one between their files.

use std::fs;
use std::path::Path;

/// The program, without what is said about it at the top.
fn program(name: &str) -> Vec<String> {
    let path = format!("examples/from_tokio/{name}");
    let lines = read(&path);
    let lines = lines.lines().skip_while(|line| !line.starts_with("use "));
    lines.map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn the_readme_shows_the_whole_difference_between_the_program_before_and_after() {
    let (before, after) = (program("before.rs"), program("after.rs"));
    assert_eq!(before.len(), after.len(), "no line is new");
    let mut difference = Vec::new();
    for (old, new) in before.iter().zip(&after) {
        if old != new {
            difference.push(format!("-{old}"));
            difference.push(format!("+{new}"));
        }
    }
    let readme = read("README.md");
    let (_, shown) = readme.split_once("```diff\n").expect("a diff");
    let (shown, _) = shown.split_once("```").expect("its end");
    let shown: Vec<&str> = shown.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(shown, difference);
}
