//! What comes out, and where errors point. That it compiles and runs is tested from outside, in `tests/it/macros.rs`.

use super::*;

/// What the error beside the function says, and which part of `source` it points to.
struct Mistake {
    says: String,
    at: String,
}

fn mistakes_in(options: &str) -> Vec<Mistake> {
    let error = match syn::parse_str::<Options>(options) {
        Ok(_) => panic!("{options} is taken"),
        Err(error) => error,
    };
    errors(error, options)
}

fn errors(error: Error, source: &str) -> Vec<Mistake> {
    let shown = error.into_iter().map(|error| {
        let columns = error.span().start().column..error.span().end().column;
        Mistake {
            says: error.to_string(),
            at: source[columns].to_owned(),
        }
    });
    shown.collect()
}

#[track_caller]
fn the_mistake_in(options: &str, at: &str, says: &str) {
    let mistakes = mistakes_in(options);
    assert_eq!(mistakes.len(), 1, "{options}");
    assert_eq!(mistakes[0].at, at, "{options}");
    assert!(mistakes[0].says.contains(says), "{}", mistakes[0].says);
}

#[track_caller]
fn the_mistake_of(kind: Kind, function: &str, at: &str, says: &str) {
    let parsed: Function = syn::parse_str(function).unwrap();
    let mistakes = errors(check(kind, &parsed).unwrap_err(), function);
    assert_eq!(mistakes.len(), 1, "{function}");
    assert_eq!(mistakes[0].at, at, "{function}");
    assert!(mistakes[0].says.contains(says), "{}", mistakes[0].says);
}

/// Without spaces, which differ between versions of the printer.
fn expanded(kind: Kind, options: &str, function: &str) -> String {
    let out = expand(kind, options.parse().unwrap(), function.parse().unwrap());
    let text = out.to_string();
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

// --- what comes out ---

#[test]
fn main_has_the_defaults_of_the_builder() {
    let out = expanded(Kind::Main, "", "async fn main() { work().await }");
    assert!(out.starts_with("fnmain(){"), "{out}");
    assert!(out.contains("async{work().await}"), "{out}");
    assert!(out.contains("::polity::Builder::new().build()"), "{out}");
    assert!(!out.contains("compile_error"), "{out}");
}

#[test]
fn a_test_has_one_worker_and_neither_pins_nor_listens() {
    let out = expanded(Kind::Test, "", "async fn works() {}");
    assert!(
        out.starts_with("#[::core::prelude::v1::test]fnworks(){"),
        "{out}"
    );
    let builder = "::polity::Builder::new().worker_threads(1).pin(::polity::Pin::Off).signals(::polity::Signals::Off).build()";
    assert!(out.contains(builder), "{out}");
}

#[test]
fn each_option_becomes_a_call_of_the_builder() {
    let options = "worker_threads = 1 + 1, policy = a::B::new(3), unpinned, crate = other::polity,";
    let out = expanded(
        Kind::Main,
        options,
        "pub async fn serve(port: u16) -> u16 { port }",
    );
    assert!(out.starts_with("pubfnserve(port:u16)->u16{"), "{out}");
    let builder = "other::polity::Builder::new().worker_threads(1+1).pin(other::polity::Pin::Off).policy(a::B::new(3))";
    assert!(out.contains(builder), "{out}");
    let pinned = expanded(Kind::Test, "pin", "async fn works() {}");
    assert!(pinned.contains(".pin(::polity::Pin::Auto)"), "{pinned}");
}

#[test]
fn attributes_and_docs_of_the_function_stay() {
    let out = expanded(
        Kind::Test,
        "",
        "#[should_panic(expected = \"no\")] #[cfg(unix)] async fn fails() { panic!(\"no\") }",
    );
    assert!(
        out.contains("#[should_panic(expected=\"no\")]#[cfg(unix)]fnfails()"),
        "{out}"
    );
}

#[test]
fn a_body_of_which_the_type_cannot_be_named_is_not_asked_for_it() {
    let never = expanded(Kind::Main, "", "async fn main() -> ! { loop {} }");
    assert!(!never.contains("dyn::core::future::Future"), "{never}");
    let hidden = expanded(
        Kind::Main,
        "",
        "async fn f() -> Option<impl Sized> { Some(1) }",
    );
    assert!(!hidden.contains("dyn::core::future::Future"), "{hidden}");
    let named = expanded(Kind::Main, "", "async fn f() -> Option<u8> { None }");
    assert!(
        named.contains("dyn::core::future::Future<Output=Option<u8>>"),
        "{named}"
    );
}

// --- mistakes in the brackets ---

#[test]
fn an_unknown_option_is_named_with_those_that_are_known() {
    the_mistake_in(
        "colour = 3",
        "colour",
        "unknown option `colour`: known are `worker_threads = 2`",
    );
    the_mistake_in("unpinned, colour", "colour", "unknown option `colour`");
}

#[test]
fn options_of_tokio_are_answered_with_ours() {
    the_mistake_in(
        "flavor = \"current_thread\"",
        "flavor",
        "write `worker_threads = 1`",
    );
    the_mistake_in("workers = 3", "workers", "write `worker_threads = 2`");
}

#[test]
fn a_number_of_workers_out_of_range_is_named() {
    the_mistake_in("worker_threads = 0", "0", "from 1 to 1024, and not 0");
    the_mistake_in(
        "worker_threads = 1025",
        "1025",
        "from 1 to 1024, and not 1025",
    );
    the_mistake_in(
        "worker_threads = \"2\"",
        "\"2\"",
        "not the text \"2\": write `worker_threads = 2`",
    );
    the_mistake_in("worker_threads = true", "true", "from 1 to 1024");
    assert!(syn::parse_str::<Options>("worker_threads = 1024").is_ok());
}

#[test]
fn an_option_without_its_value_and_a_value_too_many_are_mistakes() {
    the_mistake_in(
        "worker_threads",
        "worker_threads",
        "`worker_threads` needs a value",
    );
    the_mistake_in("policy", "policy", "`policy` needs a value");
    the_mistake_in("pin = true", "pin", "`pin` takes no value");
    the_mistake_in("policy = \"vtime\"", "\"vtime\"", "a value and not a name");
    the_mistake_in("crate = \"polity\"", "\"polity\"", "a path and not a text");
}

#[test]
fn an_option_that_is_given_twice_or_contradicts_another_is_a_mistake() {
    the_mistake_in(
        "worker_threads = 1, worker_threads = 2",
        "worker_threads",
        "given twice",
    );
    the_mistake_in("pin, unpinned", "unpinned", "contradict each other");
    the_mistake_in("pin, pin", "pin", "given twice");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mistakes = mistakes_in("colour = 3, worker_threads = 0, size");
    let at: Vec<&str> = mistakes.iter().map(|mistake| &*mistake.at).collect();
    assert_eq!(at, ["colour", "0", "size"]);
}

// --- mistakes in the function ---

#[test]
fn a_function_that_is_not_async_is_told_so_at_its_fn() {
    the_mistake_of(
        Kind::Main,
        "fn main() {}",
        "fn",
        "#[polity::main] needs an `async fn`: write `async fn main`",
    );
    the_mistake_of(
        Kind::Test,
        "pub fn works() {}",
        "fn",
        "#[polity::test] needs an `async fn`",
    );
}

#[test]
fn arguments_are_refused_where_nobody_would_pass_them() {
    the_mistake_of(
        Kind::Main,
        "async fn main(n: u8) {}",
        "n: u8",
        "`main` takes no arguments",
    );
    the_mistake_of(
        Kind::Test,
        "async fn works(n: u8) {}",
        "n: u8",
        "a test takes no arguments",
    );
    let other: Function = syn::parse_str("async fn helper(n: u8) {}").unwrap();
    assert!(check(Kind::Main, &other).is_ok());
}

#[test]
fn a_second_test_attribute_is_refused() {
    the_mistake_of(
        Kind::Test,
        "#[test] async fn works() {}",
        "#[test]",
        "would run twice",
    );
    the_mistake_of(
        Kind::Test,
        "#[core::prelude::v1::test] async fn works() {}",
        "#[core::prelude::v1::test]",
        "would run twice",
    );
}

#[test]
fn a_function_with_a_mistake_comes_out_all_the_same() {
    let out = expanded(Kind::Main, "colour", "async fn main() { work().await }");
    assert!(
        out.starts_with("fnmain(){") && out.contains("work().await"),
        "{out}"
    );
    assert!(out.contains("compile_error"), "{out}");
    let both = expanded(Kind::Test, "colour", "fn works() {}");
    assert_eq!(both.matches("compile_error").count(), 2, "{both}");
}

#[test]
fn what_is_no_function_is_left_as_it_is_beside_the_error() {
    let out = expanded(Kind::Main, "", "struct Main;");
    assert!(
        out.starts_with("structMain;") && out.contains("compile_error"),
        "{out}"
    );
}

#[test]
fn a_body_that_nobody_could_parse_is_passed_on() {
    let out = expanded(Kind::Main, "", "async fn main() { let x = }");
    assert!(out.contains("async{letx=}"), "{out}");
}
