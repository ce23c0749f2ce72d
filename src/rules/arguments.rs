//! Flags and options of an argument list, decomposed.
//!
//! An argument that begins with a dash loses one or two of them. After a single dash, letters and digits alone are a
//! cluster, and each is a flag; what has no `=` and is longer than one character is a flag as a whole too. An option is
//! a name with a value: `name=value` in one argument, or a name and the next argument if that does not begin with a dash.

use std::borrow::Cow;

/// The flags of the arguments after argv\[0\]; each letter of clusters once. Nothing bounds them but the arguments: who
/// writes these would put what matters behind the bound.
pub fn flags<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Vec<Cow<'a, [u8]>> {
    let mut flags = Vec::new();
    let mut had = [false; 256];
    for (dashes, name) in arguments.filter_map(stripped) {
        if dashes == 1 && name.iter().all(u8::is_ascii_alphanumeric) {
            for letter in name.chunks(1) {
                let had = letter.first().and_then(|&letter| had.get_mut(usize::from(letter)));
                if had.is_some_and(|had| !std::mem::replace(had, true)) {
                    flags.push(Cow::Borrowed(letter));
                }
            }
        }
        if !name.contains(&b'=') && name.len() > 1 {
            flags.push(Cow::Borrowed(name));
        }
    }
    flags
}

/// The options of the arguments after argv\[0\], as `name=value`.
pub fn options<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Vec<Cow<'a, [u8]>> {
    let mut options = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let Some((_, name)) = stripped(argument) else { continue };
        if !name.first().is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        if name.contains(&b'=') {
            options.push(Cow::Borrowed(name));
        } else if let Some(value) = arguments.next_if(|next| !next.starts_with(b"-")) {
            options.push(Cow::Owned([name, b"=", value].concat()));
        }
    }
    options
}

/// An argument without its dashes, and how many they were.
fn stripped(argument: &[u8]) -> Option<(usize, &[u8])> {
    let name = argument.strip_prefix(b"-").filter(|name| !name.is_empty())?;
    match name.strip_prefix(b"-") {
        Some(long) => Some((2, long)).filter(|(_, long)| !long.is_empty()),
        None => Some((1, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(words: Vec<Cow<'_, [u8]>>) -> Vec<String> {
        words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    fn both(arguments: &[&str]) -> (Vec<String>, Vec<String>) {
        let bytes = || arguments.iter().map(|argument| argument.as_bytes());
        (list(flags(bytes())), list(options(bytes())))
    }

    #[test]
    fn clusters_and_values() {
        let expect = |arguments: &[&str], flags: &[&str], options: &[&str]| {
            let (found_flags, found_options) = both(arguments);
            assert_eq!(
                (found_flags, found_options),
                (flags.iter().map(|&s| s.into()).collect(), options.iter().map(|&s| s.into()).collect()),
                "{arguments:?}"
            );
        };
        expect(&["-lvp", "4444"], &["l", "v", "p", "lvp"], &["lvp=4444"]);
        expect(&["--version"], &["version"], &[]);
        expect(&["--a=b"], &[], &["a=b"]);
        expect(&["-T", "8"], &["T"], &["T=8"]);
        expect(&["-T", ""], &["T"], &["T="]);
        expect(&["-a", "-b", "x", "y"], &["a", "b"], &["b=x"]);
        expect(&["-", "--", "---", "x"], &[], &[]);
        expect(&["--exec", "/bin/sh"], &["exec"], &["exec=/bin/sh"]);
        expect(&["-vve", "-ve"], &["v", "e", "vve", "ve"], &[]);
        expect(&["-o=x,y", "-e/bin/sh"], &["e/bin/sh"], &["o=x,y"]);
    }

    proptest! {
        #[test]
        fn any_arguments_end(arguments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..8), 0..12)) {
            let bytes = || arguments.iter().map(Vec::as_slice);
            prop_assert!(options(bytes()).len() <= arguments.len());
            prop_assert!(flags(bytes()).iter().all(|flag| !flag.is_empty()));
        }
    }
}
