//! `#[polity::main]` and `#[polity::test]`. Depend on package `polity`, which exports them (feature `macros`, on by default).
//!
//! Not a configuration language: what is not one of the options below is said to a `polity::Builder`.
//!
//! | file | what it holds |
//! |---|---|
//! | `options.rs` | what stands in the brackets |
//! | `expand.rs` | the function that comes out |

#![forbid(unsafe_code)]

mod expand;
mod options;

use expand::{Kind, expand};
use proc_macro::TokenStream;

/// Runs an `async fn` on a runtime of its own: builds it, waits for the body, drops it.
///
/// The runtime has the defaults of `polity::Builder::new()`, unless told otherwise:
///
/// | option | what it means |
/// |---|---|
/// | `worker_threads = 2` | `Builder::worker_threads`: a number, or an expression for one |
/// | `policy = Priority::new()` | `Builder::policy`: loaded before the body runs |
/// | `pin`, `unpinned` | `Pin::Auto` (the default), `Pin::Off` |
/// | `crate = other::path` | where polity is, if it has another name here |
///
/// For everything else, and for errors as values, build the runtime yourself with `Builder`.
///
/// **The body is not a task.** It is the root future of `Runtime::block_on`, on the thread that calls the function: no policy
/// orders it, and it has no id. What should be scheduled is spawned. When the body has ended, the runtime is dropped: tasks that
/// are still there are cancelled, blocking calls that have begun are waited for.
///
/// The function may have any name, arguments (unless it is `main`) and any return type.
///
/// # Panics
/// The function panics, with the error as its message, if the runtime cannot be built or the policy is refused; and where
/// `block_on` does: inside a task.
#[proc_macro_attribute]
pub fn main(options: TokenStream, function: TokenStream) -> TokenStream {
    expand(Kind::Main, options.into(), function.into()).into()
}

/// Makes a test of an `async fn`: each run has a runtime of its own.
///
/// The options are those of [`main`](macro@main). The defaults are for tests, which run side by side: one worker, not pinned,
/// deaf to signals (`Signals::Off`). The body runs on the test's own thread beside that worker; **it is not a task**.
///
/// The test fails if the body panics or returns an error, as any test does. A task that panics fails it only if somebody looks at
/// its `JoinHandle`.
#[proc_macro_attribute]
pub fn test(options: TokenStream, function: TokenStream) -> TokenStream {
    expand(Kind::Test, options.into(), function.into()).into()
}
