//! What stands in the brackets of the attributes.

use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, Path, Result, Token};

const KNOWN: &str = "known are `worker_threads = 2`, `policy = MyPolicy::new()`, `pin`, `unpinned` and `crate = path`; \
                     everything else is said to a `polity::Builder`";

/// Whether workers are to stay on their cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pinning {
    Auto,
    Off,
}

/// What was said; `None`: nothing.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) worker_threads: Option<Expr>,
    pub(crate) policy: Option<Expr>,
    pub(crate) pinning: Option<Pinning>,
    pub(crate) krate: Option<Path>,
}

impl Parse for Options {
    /// Goes on after a mistake, so that all of them are reported at once.
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Options::default();
        let mut seen = Vec::new();
        let mut mistakes: Option<Error> = None;
        while !input.is_empty() {
            // A word that is a keyword (`crate`) is one as well.
            let name = input.call(Ident::parse_any)?;
            if let Err(error) = options.parse_one(&name, &mut seen, input) {
                match &mut mistakes {
                    Some(mistakes) => mistakes.combine(error),
                    None => mistakes = Some(error),
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        match mistakes {
            Some(mistakes) => Err(mistakes),
            None => Ok(options),
        }
    }
}

impl Options {
    fn parse_one(
        &mut self,
        name: &Ident,
        seen: &mut Vec<String>,
        input: ParseStream<'_>,
    ) -> Result<()> {
        let word = name.to_string();
        let twice = seen.contains(&word);
        match word.as_str() {
            "worker_threads" => self.worker_threads = Some(workers(value(name, input)?)?),
            "policy" => self.policy = Some(policy(value(name, input)?)?),
            "pin" | "unpinned" => {
                let pinning = match word.as_str() {
                    "pin" => Pinning::Auto,
                    _ => Pinning::Off,
                };
                let other = self.pinning.replace(pinning);
                if input.peek(Token![=]) {
                    value::<Expr>(name, input)?;
                    return Err(Error::new(
                        name.span(),
                        format!("`{word}` takes no value: write `pin` or `unpinned`"),
                    ));
                }
                if other.is_some_and(|other| other != pinning) {
                    return Err(Error::new(
                        name.span(),
                        "`pin` and `unpinned` contradict each other: leave one out",
                    ));
                }
            }
            "crate" => self.krate = Some(krate(name, input)?),
            _ => return Err(unknown(name, input)),
        }
        seen.push(word);
        if twice {
            return Err(Error::new(
                name.span(),
                format!("`{name}` is given twice: leave one out"),
            ));
        }
        Ok(())
    }
}

/// What follows the name and its `=`.
fn value<T: Parse>(name: &Ident, input: ParseStream<'_>) -> Result<T> {
    if !input.peek(Token![=]) {
        return Err(Error::new(
            name.span(),
            format!("`{name}` needs a value, as in `{name} = ...`"),
        ));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

fn workers(expr: Expr) -> Result<Expr> {
    let Expr::Lit(ExprLit { lit, .. }) = &expr else {
        return Ok(expr);
    };
    let wrong = match lit {
        Lit::Int(number) => match number.base10_parse::<u64>() {
            Ok(1..=1024) => return Ok(expr),
            _ => format!("{number}"),
        },
        Lit::Str(text) => format!("the text {:?}", text.value()),
        _ => "this".to_owned(),
    };
    Err(Error::new(
        lit.span(),
        format!(
            "worker_threads is a number from 1 to 1024, and not {wrong}: write `worker_threads = 2`"
        ),
    ))
}

fn policy(expr: Expr) -> Result<Expr> {
    match &expr {
        Expr::Lit(literal) => Err(Error::new(
            literal.span(),
            "a policy is a value and not a name: write `policy = polity_policies::Priority::new()`",
        )),
        _ => Ok(expr),
    }
}

fn krate(name: &Ident, input: ParseStream<'_>) -> Result<Path> {
    if input.peek(Token![=]) && !input.peek2(syn::LitStr) {
        input.parse::<Token![=]>()?;
        return input.call(Path::parse_mod_style);
    }
    let wrong = value::<Expr>(name, input)?;
    Err(Error::new(
        wrong.span(),
        "`crate` is a path and not a text: write `crate = my::polity`",
    ))
}

/// Skips the value, too, so that what follows is looked at.
fn unknown(name: &Ident, input: ParseStream<'_>) -> Error {
    if input.peek(Token![=]) {
        // One that is no expression is a mistake of its own, which the next look at the input finds.
        let _ = value::<Expr>(name, input);
    }
    let text = match name.to_string().as_str() {
        "flavor" => "polity has no flavors: leave it out, or write `worker_threads = 1`".to_owned(),
        "workers" | "threads" | "core_threads" => {
            format!("unknown option `{name}`: write `worker_threads = 2`")
        }
        "unpin" | "no_pin" => format!("unknown option `{name}`: write `unpinned`"),
        _ => format!("unknown option `{name}`: {KNOWN}"),
    };
    Error::new(name.span(), text)
}
