//! The grammar of rule strings.
//!
//! ```text
//! rule      = *( "/" / literal / variable )
//! literal   = 1*<any character except "<" and "/">
//! variable  = "<" [ converter [ "(" arguments ")" ] ":" ] name ">"
//! converter = name
//! arguments = *<any character except LF>      ; as few as let the rest match
//! name      = ( ALPHA / "_" ) *( ALPHA / DIGIT / "_" )
//! ```

use std::borrow::Cow;

use crate::Error;

/// One piece of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'r> {
    /// A slash between segments.
    Slash,
    /// Text that stands for itself.
    Literal(&'r str),
    /// A variable part.
    Variable {
        /// What the value is called.
        name: &'r str,
        /// The converter named before the colon.
        converter: Option<&'r str>,
        /// What stands in parentheses after the converter's name.
        arguments: Option<&'r str>,
    },
}

/// Splits a rule into its pieces.
///
/// # Errors
/// [`Error::Malformed`] for a `<` that opens no variable.
pub fn tokens(rule: &str) -> Result<Vec<Token<'_>>, Error> {
    let mut found = Vec::new();
    let mut rest = rule;
    while let Some(first) = rest.chars().next() {
        match first {
            '/' => {
                found.push(Token::Slash);
                rest = rest.get(1..).unwrap_or("");
            }
            '<' => {
                let (token, after) = variable(rest).ok_or_else(|| Error::Malformed(rule.to_owned()))?;
                found.push(token);
                rest = after;
            }
            _ => {
                let (literal, after) = rest.split_at(rest.find(['<', '/']).unwrap_or(rest.len()));
                found.push(Token::Literal(literal));
                rest = after;
            }
        }
    }
    Ok(found)
}

/// Replaces each pair of slashes by one.
///
/// Pairs, not runs: Werkzeug turns `a///b` into `a//b`, and so do we.
#[must_use]
pub fn merge_slashes(path: &str) -> Cow<'_, str> {
    if path.contains("//") { Cow::Owned(path.replace("//", "/")) } else { Cow::Borrowed(path) }
}

fn variable(text: &str) -> Option<(Token<'_>, &str)> {
    let (first, rest) = name(text.strip_prefix('<')?)?;
    if let Some(after) = rest.strip_prefix('>') {
        return Some((Token::Variable { name: first, converter: None, arguments: None }, after));
    }
    if let Some(rest) = rest.strip_prefix(':') {
        let (name, after) = name_and_end(rest)?;
        return Some((Token::Variable { name, converter: Some(first), arguments: None }, after));
    }
    let inner = rest.strip_prefix('(')?;
    // The first closing parenthesis with `:name>` behind it ends the arguments; a quoted `)` may come before.
    for (at, found) in inner.char_indices() {
        match found {
            '\n' => return None,
            ')' => {
                let (arguments, tail) = inner.split_at(at);
                let end = tail.strip_prefix("):").and_then(name_and_end);
                if let Some((name, after)) = end {
                    return Some((
                        Token::Variable { name, converter: Some(first), arguments: Some(arguments) },
                        after,
                    ));
                }
            }
            _ => {}
        }
    }
    None
}

fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) { None } else { Some((name, rest)) }
}

fn name_and_end(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = name(text)?;
    Some((name, rest.strip_prefix('>')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var<'r>(name: &'r str, converter: Option<&'r str>, arguments: Option<&'r str>) -> Token<'r> {
        Token::Variable { name, converter, arguments }
    }

    #[test]
    fn a_rule_is_split_into_slashes_literals_and_variables() {
        let rule = r#"/a<b>-<int(min=1):c>/<any("x):y>", z):d>>"#;
        assert_eq!(
            tokens(rule).unwrap(),
            [
                Token::Slash,
                Token::Literal("a"),
                var("b", None, None),
                Token::Literal("-"),
                var("c", Some("int"), Some("min=1")),
                Token::Slash,
                var("y", Some("any"), Some("\"x")),
                Token::Literal("\", z):d>>"),
            ]
        );
    }

    #[test]
    fn a_parenthesis_inside_the_arguments_does_not_end_them() {
        assert_eq!(tokens("<re((a|b)c):x>").unwrap(), [var("x", Some("re"), Some("(a|b)c"))]);
        assert_eq!(tokens("<any():x>").unwrap(), [var("x", Some("any"), Some(""))]);
    }

    #[test]
    fn a_bracket_that_opens_no_variable_is_refused() {
        for rule in
            ["/<", "/<>", "/<a", "/<1a>", "/<int:>", "/<int(>", "/<int(1)>", "/<a b>", "/<é>", "/<r(\n):x>"]
        {
            assert!(tokens(rule).is_err(), "{rule}");
        }
    }

    #[test]
    fn slashes_are_merged_by_pairs() {
        assert_eq!(merge_slashes("/a//b"), "/a/b");
        assert_eq!(merge_slashes("/a///b////c"), "/a//b//c");
        assert!(matches!(merge_slashes("/a/b"), Cow::Borrowed(_)));
    }
}
