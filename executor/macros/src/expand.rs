//! The function that comes out.
//!
//! After a mistake it comes out all the same, with defaults, and the error beside it: an editor then still completes inside the
//! body, and the compiler does not complain about a missing `main` as well. The body is not parsed: a half-written one is the
//! compiler's to report.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Error, Ident, Result, ReturnType, Signature, Type, Visibility};

use crate::options::{Options, Pinning};

/// Which of the two attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Main,
    Test,
}

impl Kind {
    fn attribute(self) -> &'static str {
        match self {
            Kind::Main => "#[polity::main]",
            Kind::Test => "#[polity::test]",
        }
    }
}

/// A function whose body nobody has looked at.
struct Function {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
    body: proc_macro2::Group,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        Ok(Function {
            attributes: input.call(Attribute::parse_outer)?,
            visibility: input.parse()?,
            signature: input.parse()?,
            body: input.parse()?,
        })
    }
}

/// The whole of an attribute: what was in its brackets and what it stands on, to what takes its place.
pub(crate) fn expand(kind: Kind, options: TokenStream, item: TokenStream) -> TokenStream {
    let function: Function = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => return with_error(item, error),
    };
    let checked = check(kind, &function);
    let (options, mistake) = match syn::parse2::<Options>(options) {
        Ok(options) => (options, None),
        Err(error) => (Options::default(), Some(error)),
    };
    let mistake = match (checked, mistake) {
        (Err(mut error), Some(other)) => {
            error.combine(other);
            Some(error)
        }
        (Err(error), None) => Some(error),
        (Ok(()), mistake) => mistake,
    };
    let expanded = function.expand(kind, &options);
    match mistake {
        Some(error) => with_error(expanded, error),
        None => expanded,
    }
}

fn with_error(mut tokens: TokenStream, error: Error) -> TokenStream {
    tokens.extend(error.into_compile_error());
    tokens
}

fn check(kind: Kind, function: &Function) -> Result<()> {
    let signature = &function.signature;
    let attribute = kind.attribute();
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(
            signature.fn_token,
            format!(
                "{attribute} needs an `async fn`: write `async fn {}`, or leave the attribute out",
                signature.ident
            ),
        ));
    }
    let takes_none = match kind {
        Kind::Main => signature.ident == "main",
        Kind::Test => true,
    };
    if takes_none && !signature.inputs.is_empty() {
        let what = match kind {
            Kind::Main => "`main`",
            Kind::Test => "a test",
        };
        return Err(Error::new_spanned(
            &signature.inputs,
            format!("{what} takes no arguments: nobody would pass them"),
        ));
    }
    if kind == Kind::Test
        && let Some(second) = function.attributes.iter().find(|other| is_test(other))
    {
        return Err(Error::new_spanned(
            second,
            "this test would run twice: leave `#[test]` out, #[polity::test] makes one",
        ));
    }
    Ok(())
}

/// `#[test]`, by its short name or by `core::prelude::v1::test`. Not `#[tokio::test]`: that it is one cannot be known here.
fn is_test(attribute: &Attribute) -> bool {
    let path = attribute.path();
    let from_prelude = path.segments.iter().any(|part| part.ident == "prelude");
    path.is_ident("test")
        || (from_prelude
            && path
                .segments
                .last()
                .is_some_and(|last| last.ident == "test"))
}

impl Function {
    fn expand(self, kind: Kind, options: &Options) -> TokenStream {
        let Function {
            attributes,
            visibility,
            mut signature,
            body,
        } = self;
        signature.asyncness = None;
        let polity = match &options.krate {
            Some(path) => path.to_token_stream(),
            None => quote!(::polity),
        };
        let builder = builder(kind, options, &polity);
        // Where the body has another type than the function, the compiler points at the last token of the body: that is where
        // ours claim to stand.
        let at_end = last_span(&body);
        // The body comes before anything of ours has a name, and our names cannot be seen from it.
        let root = Ident::new("root", Span::mixed_site().located_at(at_end));
        let runtime = Ident::new("runtime", Span::mixed_site().located_at(at_end));
        let error = Ident::new("error", Span::mixed_site());
        let typed = typed(&root, &signature.output, at_end);
        let failed = format!(
            "{} on `{}`: the runtime was not built: {{}}",
            kind.attribute(),
            signature.ident
        );
        let block_on = quote_spanned!(at_end=> return #runtime.block_on(#root););
        let test = (kind == Kind::Test).then(|| quote!(#[::core::prelude::v1::test]));
        quote! {
            #test
            #(#attributes)*
            #visibility #signature {
                let #root = async #body;
                #typed
                #[allow(clippy::needless_return, clippy::diverging_sub_expression)]
                {
                    let #runtime = match #builder.build() {
                        ::core::result::Result::Ok(#runtime) => #runtime,
                        ::core::result::Result::Err(#error) => ::core::panic!(#failed, #error),
                    };
                    #block_on
                }
            }
        }
    }
}

/// The builder, with what was asked for.
fn builder(kind: Kind, options: &Options, polity: &TokenStream) -> TokenStream {
    let Options {
        worker_threads,
        policy,
        pinning,
        krate: _,
    } = options;
    let worker_threads = match (kind, worker_threads) {
        (_, Some(workers)) => quote!(.worker_threads(#workers)),
        // Tests run side by side: with a worker per core each, they would have the square of the cores.
        (Kind::Test, None) => quote!(.worker_threads(1)),
        (Kind::Main, None) => quote!(),
    };
    let pin = match (kind, pinning) {
        (_, Some(Pinning::Auto)) => quote!(.pin(#polity::Pin::Auto)),
        (_, Some(Pinning::Off)) | (Kind::Test, None) => quote!(.pin(#polity::Pin::Off)),
        (Kind::Main, None) => quote!(),
    };
    let signals = match kind {
        // They belong to the process, and so to all tests.
        Kind::Test => quote!(.signals(#polity::Signals::Off)),
        Kind::Main => quote!(),
    };
    let policy = policy.as_ref().map(|policy| quote!(.policy(#policy)));
    quote!(#polity::Builder::new() #worker_threads #pin #signals #policy)
}

/// Says the type of the body early: an error in it is then one in the body, and not in ours.
fn typed(root: &Ident, output: &ReturnType, at_end: Span) -> TokenStream {
    let output = match output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, output) if can_be_named(output) => quote!(#output),
        ReturnType::Type(..) => return quote!(),
    };
    quote_spanned! {at_end=>
        if false {
            let _: &dyn ::core::future::Future<Output = #output> = &#root;
        }
    }
}

/// Neither `!` nor anything with an `impl` in it can be the type of a variable.
fn can_be_named(output: &Type) -> bool {
    fn has_impl(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(word) => word == "impl",
            TokenTree::Group(group) => has_impl(group.stream()),
            _ => false,
        })
    }
    !matches!(output, Type::Never(_)) && !has_impl(output.to_token_stream())
}

fn last_span(body: &proc_macro2::Group) -> Span {
    match body.stream().into_iter().last() {
        Some(last) => Span::call_site().located_at(last.span()),
        None => Span::call_site(),
    }
}

#[cfg(test)]
mod tests;
