//! What must hold for any path, rule and regular expression. Run by the fuzz target, and on generated input by
//! `cargo test`.

use hipflask_router::{Conversion, Limits, Outcome, Router, Rule, Value, Variable, tokens};

/// A path leads somewhere without a panic, what it leads to is part of it, and redirects come to an end.
pub(crate) fn path(data: &[u8]) {
    let path = String::from_utf8_lossy(data);
    let router = Router::new(&rules(), true).expect("the rules are right");
    let mut at = path.into_owned();
    for _ in 0..data.len() + 2 {
        match router.matches("www", &at, "GET", false) {
            Outcome::Found(found) => {
                for value in found.values {
                    match value {
                        Value::Text(text) | Value::Deferred(text) => assert!(at.contains(&*text)),
                        Value::Long(digits) => {
                            assert!(digits.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()));
                        }
                        Value::Float(number) => assert!(!number.is_nan()),
                        Value::Integer(_) | Value::Uuid(_) => {}
                    }
                }
                return;
            }
            Outcome::Redirect(next) => {
                assert_ne!(next, at);
                at = next;
            }
            Outcome::Refused(_) => return,
        }
    }
    panic!("redirects have no end");
}

/// Up to the first line feed a rule's variable's expression, then a path.
pub(crate) fn rule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (rule, path) = text.split_once('\n').unwrap_or((&text, "/a/b"));
    let _ = tokens(rule);
    let variable = Variable::new("x", rule, Conversion::Text);
    for variable in [variable.clone(), variable.with_slashes()] {
        let made = Rule::new("", "/a/<x>", &[variable]).and_then(|rule| Router::new(&[rule], true));
        if let Ok(router) = made {
            let _ = router.matches("", path, "GET", false);
        }
    }
}

fn rules() -> Vec<Rule> {
    let text = |name| Variable::new(name, "[^/]{1,}", Conversion::Text);
    let path = |name| Variable::new(name, "[^/].*?", Conversion::Text).with_weight(200.0).with_slashes();
    let limits = Limits { max: Some(99), ..Limits::none() };
    let number = |name, limits| Variable::new(name, r"-?\d+", Conversion::Integer(limits)).with_weight(50.0);
    let float = Variable::new("f", r"\d+\.\d+", Conversion::Float(Limits::none())).with_weight(50.0);
    let all: [(&str, Vec<Variable>); 10] = [
        ("/", vec![]),
        ("/a/", vec![]),
        ("/a/b", vec![]),
        ("/<x>/", vec![text("x")]),
        ("/<x>-<y>", vec![text("x"), text("y")]),
        ("/<int:n>/<int:m>", vec![number("n", Limits::none()), number("m", limits)]),
        ("/f/<float:f>", vec![float]),
        ("/p/<path:p>/", vec![path("p")]),
        ("/<path:p>.<x>", vec![path("p"), text("x")]),
        ("/<path:p>/<path:q>/x", vec![path("p"), path("q")]),
    ];
    all.into_iter()
        .map(|(rule, variables)| Rule::new("www", rule, &variables).expect("a right rule"))
        .collect()
}
