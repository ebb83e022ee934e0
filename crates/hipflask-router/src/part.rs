//! The parts of a rule: what lies between two slashes, or from a variable that takes slashes to the end.

use std::cmp::Ordering;

use crate::pattern::Piece;
use crate::syntax::Token;
use crate::{Error, Variable};

/// Which of several dynamic parts is tried first: the lesser.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weight {
    literals: Vec<usize>,
    variables: Vec<f64>,
}

impl Weight {
    /// More literals first, then longer ones, then more variables, then lighter ones.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        let literals =
            other.literals.len().cmp(&self.literals.len()).then_with(|| other.literals.cmp(&self.literals));
        literals.then_with(|| other.variables.len().cmp(&self.variables.len())).then_with(|| {
            let mut pairs = self.variables.iter().zip(&other.variables);
            pairs
                .find_map(|(mine, theirs)| mine.partial_cmp(theirs).filter(|order| order.is_ne()))
                .unwrap_or(Ordering::Equal)
        })
    }
}

/// One part.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Part {
    pub(crate) pieces: Vec<Piece>,
    /// Takes the rest of the path, slashes and all.
    pub(crate) takes_rest: bool,
    /// Takes the rest, less a slash at the end.
    pub(crate) suffixed: bool,
    pub(crate) weight: Weight,
}

impl Part {
    /// The text that it stands for, if no variable is in it.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    fn push_literal(&mut self, text: &str) {
        if let Some(Piece::Literal(before)) = self.pieces.last_mut() {
            before.push_str(text);
        } else {
            self.pieces.push(Piece::Literal(text.to_owned()));
        }
    }

    fn drop_last_slash(&mut self) -> bool {
        let Some(Piece::Literal(text)) = self.pieces.last_mut() else { return false };
        if !text.ends_with('/') {
            return false;
        }
        text.pop();
        if text.is_empty() {
            self.pieces.pop();
        }
        true
    }
}

/// Divides a rule into parts. `variables` are taken in the order in which the tokens name them.
pub(crate) fn parts<'v>(
    tokens: &[Token<'_>],
    variables: &mut impl Iterator<Item = &'v Variable>,
) -> Result<Vec<Part>, Error> {
    let mut found = Vec::new();
    let mut part = Part::default();
    for token in tokens {
        match token {
            Token::Literal(text) => {
                part.weight.literals.push(text.chars().count());
                part.push_literal(text);
            }
            Token::Variable { name, .. } => {
                let variable = variables
                    .next()
                    .filter(|variable| *variable.name == **name)
                    .ok_or_else(|| Error::Variables((*name).to_owned()))?;
                part.takes_rest |= !variable.isolating;
                part.weight.variables.push(variable.weight);
                part.pieces.push(Piece::Variable(variable.regex.clone()));
            }
            Token::Slash if part.takes_rest => part.push_literal("/"),
            Token::Slash => found.push(std::mem::take(&mut part)),
        }
    }
    if part.takes_rest && part.drop_last_slash() {
        part.suffixed = true;
    }
    let suffixed = part.suffixed;
    found.push(part);
    if suffixed {
        found.push(Part::default());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(literals: &[usize], variables: &[f64]) -> Weight {
        Weight { literals: literals.into(), variables: variables.into() }
    }

    #[test]
    fn the_more_is_said_about_a_part_the_earlier_it_is_tried() {
        let sorted = [
            weight(&[1, 1], &[100.0]),
            weight(&[3], &[100.0]),
            weight(&[1], &[100.0, 100.0]),
            weight(&[1], &[50.0]),
            weight(&[], &[50.0, 100.0]),
            weight(&[], &[50.0]),
            weight(&[], &[100.0]),
            weight(&[], &[200.0]),
        ];
        let mut shuffled: Vec<Weight> = sorted.iter().rev().cloned().collect();
        shuffled.sort_by(Weight::order);
        assert_eq!(shuffled, sorted);
    }
}
