//! Building paths from rules, and URLs from paths.

use crate::Error;
use std::borrow::Cow;

use crate::quote::quote_path;
use crate::syntax::{Token, tokens};

/// A piece of a URL to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Text, encoded already.
    Text(String),
    /// The value of the variable with this number.
    Variable(usize),
}

/// How a rule's URL is put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The subdomain or host.
    pub domain: Vec<Place>,
    /// The path.
    pub path: Vec<Place>,
}

impl Template {
    /// A template for a rule. `constant` gives the encoded text of a variable that never changes.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn new(
        domain: &str,
        path: &str,
        mut constant: impl FnMut(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let mut number = 0;
        let mut places = |rule| -> Result<Vec<Place>, Error> {
            let mut places = Vec::new();
            for token in tokens(rule)? {
                match token {
                    Token::Slash => push_text(&mut places, |text| text.push('/')),
                    Token::Literal(literal) => push_text(&mut places, |text| quote_path(text, literal)),
                    Token::Variable { name, .. } => {
                        match constant(name) {
                            Some(value) => push_text(&mut places, |text| text.push_str(&value)),
                            None => places.push(Place::Variable(number)),
                        }
                        number += 1;
                    }
                }
            }
            Ok(places)
        };
        Ok(Self { domain: places(domain)?, path: places(path)? })
    }
}

/// A path on the host that asks: `/script/path`.
#[must_use]
pub fn origin_form<'p>(script: &str, path: &'p str) -> Cow<'p, str> {
    let script = script.trim_end_matches('/');
    if script.is_empty() && path.starts_with('/') && !path.starts_with("//") {
        return Cow::Borrowed(path);
    }
    Cow::Owned([script, "/", path.trim_start_matches('/')].concat())
}

/// The absolute URL of a redirect. `path` and `query` are encoded already.
#[must_use]
pub fn redirect_url(scheme: &str, host: &str, script: &str, path: &str, query: &str) -> String {
    let script = script.trim_matches('/');
    let mut url = [scheme, "://", host].concat();
    if !script.is_empty() {
        url.push('/');
        url.push_str(script);
    }
    url.push('/');
    url.push_str(path.trim_start_matches('/'));
    if !query.is_empty() {
        url.push('?');
        url.push_str(query);
    }
    url
}

fn push_text(places: &mut Vec<Place>, write: impl FnOnce(&mut String)) {
    if let Some(Place::Text(text)) = places.last_mut() {
        write(text);
    } else {
        let mut text = String::new();
        write(&mut text);
        places.push(Place::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_melt_into_the_text_around_them() {
        let template =
            Template::new("<d>", "/a b/<x>/<y>.é", |name| (name == "x").then(|| "1".into())).unwrap();
        assert_eq!(template.domain, [Place::Variable(0)]);
        let path = [Place::Text("/a%20b/1/".into()), Place::Variable(2), Place::Text(".%C3%A9".into())];
        assert_eq!(template.path, path);
    }

    #[test]
    fn urls_are_joined_with_one_slash() {
        assert_eq!(origin_form("/", "/a"), "/a");
        assert_eq!(origin_form("/app/", "/a/"), "/app/a/");
        assert_eq!(redirect_url("http", "h", "/", "/a", ""), "http://h/a");
        assert_eq!(redirect_url("https", "h:1", "/app/", "a", "x=1"), "https://h:1/app/a?x=1");
    }
}
