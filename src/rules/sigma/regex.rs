//! Regular expressions of Sigma, which are of PCRE's dialect: what means something else, or nothing, in linear time.

/// Refuses what the `regex` crate would read in another sense than PCRE; what it cannot read at all, it refuses itself.
pub(super) fn check(expression: &str) -> Result<(), String> {
    let characters: Vec<char> = expression.chars().collect();
    let at = |index: usize| characters.get(index).copied();
    let refuse =
        |what: &str| Err(format!("{what}, which has no counterpart in regular expressions of linear time"));
    let (mut index, mut class) = (0, false);
    let mut quantifier = false;
    while let Some(character) = at(index) {
        let next = at(index + 1);
        let was_quantifier = std::mem::take(&mut quantifier);
        match (class, character) {
            (_, '\\') => {
                match next {
                    Some('1'..='9') if !class => return refuse("a back-reference (`\\1`)"),
                    Some('k' | 'g') if !class => return refuse("a back-reference (`\\k`, `\\g`)"),
                    Some('K' | 'G' | 'Q' | 'E' | 'R' | 'X' | 'Z') => {
                        return refuse(&format!("`\\{}`", next.unwrap_or_default()));
                    }
                    // In a class, `\b` is a backspace in PCRE.
                    Some('b') if class => return refuse("`[\\b]`"),
                    _ => {}
                }
                index += 2;
                continue;
            }
            (false, '[') => {
                class = true;
                // A `]` that comes first is a member.
                index += 1 + usize::from(next == Some('^'));
                index += usize::from(at(index) == Some(']'));
                continue;
            }
            (true, ']') => class = false,
            (true, '[') if next == Some(':') => {
                let end = expression_end(&characters, index);
                index = end;
                continue;
            }
            (true, '[') => return refuse("a `[` inside of `[...]` without a backslash"),
            (true, '&' | '-' | '~') if next == Some(character) => {
                return refuse(&format!("`{character}{character}` inside of `[...]`"));
            }
            (true, _) => {}
            (false, '(') if next == Some('?') => match (at(index + 2), at(index + 3)) {
                (Some('='), _) | (Some('!'), _) | (Some('<'), Some('=' | '!')) => {
                    return refuse("look-around (`(?=`, `(?!`, `(?<=`, `(?<!`)");
                }
                (Some('>'), _) => return refuse("an atomic group (`(?>`)"),
                (Some('P'), Some('=' | '>')) | (Some('R' | '&' | '(' | '|' | '#' | '0'..='9' | '+'), _) => {
                    return refuse(&format!("`(?{}`", at(index + 2).unwrap_or_default()));
                }
                _ => {}
            },
            (false, '(') if next == Some('*') => return refuse("a verb (`(*...)`)"),
            (false, '+') if was_quantifier => {
                return refuse("a possessive quantifier (`*+`, `++`, `?+`, `}+`)");
            }
            (false, '*' | '+' | '?' | '}') => quantifier = character != '?' || !was_quantifier,
            (false, _) => {}
        }
        index += 1;
    }
    Ok(())
}

/// Behind a class such as `[:alpha:]`.
fn expression_end(characters: &[char], start: usize) -> usize {
    let end = characters[start..].iter().position(|&character| character == ']');
    end.map_or(characters.len(), |end| start + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pcre_reads_otherwise_is_refused_by_name() {
        for (expression, name) in [
            ("a(?=b)", "look-around"),
            ("(?<!a)b", "look-around"),
            (r"(a)\1", "back-reference"),
            ("(?>a)", "atomic group"),
            ("a++", "possessive"),
            ("a{2}+", "possessive"),
            ("a?+", "possessive"),
            ("[a&&b]", "`&&`"),
            ("[[a]", "a `[` inside"),
            (r"\Qa\E", r"`\Q`"),
            ("(?P=x)", "(?P"),
            ("(*SKIP)", "verb"),
        ] {
            let message = check(expression).unwrap_err();
            assert!(message.contains(name), "{expression}: {message}");
        }
        for fine in [
            r"-(W|R)\s?(\s|\x22|')([0-9a-fA-F]{2}\s?){2,20}(\s|')",
            r"(?:\s-[^-\s]{0,20}i|\s--inode\s)",
            "[]a][^]a][[:alpha:]x]+?",
            r"a\++[+*][\[]",
            "(?i)(?P<x>a)(?<y>b)*?",
            r"(a+)+",
            "",
        ] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
    }
}
