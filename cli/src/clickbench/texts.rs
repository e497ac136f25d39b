//! Words, phrases, titles and addresses, each by its number.

use std::fmt::Write;

use super::hits::mix;

/// Words there are.
const WORDS: u64 = 40_000;

const SYLLABLES: [&str; 48] = [
    "ка", "ро", "на", "то", "ли", "ве", "со", "ра", "по", "ко", "ма", "но", "те", "ло", "ва", "ри",
    "да", "не", "мо", "го", "ти", "ре", "за", "ду", "ши", "бо", "че", "ку", "ла", "ми", "су", "пе",
    "ст", "ин", "ол", "ар", "ен", "ый", "ть", "ск", "un", "ta", "re", "mo", "li", "ka", "so", "de",
];
const LATIN: [&str; 24] = [
    "ka", "ro", "na", "to", "li", "ve", "so", "ra", "po", "ko", "ma", "no", "te", "lo", "va", "ri",
    "da", "ne", "mo", "go", "ti", "re", "za", "du",
];

fn syllables(text: &mut String, of: &[&'static str], number: u64, most: u64) {
    let mut bits = mix(number);
    for _ in 0..2 + bits % (most - 1) {
        bits = mix(bits);
        let index = usize::try_from(bits % of.len() as u64).unwrap_or(0);
        text.push_str(of[index]);
    }
}

/// A word.
pub(super) fn word(text: &mut String, number: u64) {
    syllables(text, &SYLLABLES, number, 4);
}

/// What somebody searches for: one to five words.
pub(super) fn phrase(text: &mut String, number: u64) {
    let bits = mix(number ^ 0x9e37);
    for place in 0..1 + bits % 5 {
        if place > 0 {
            text.push(' ');
        }
        word(text, mix(bits.wrapping_add(place)) % WORDS);
    }
}

/// A title of three to ten words; a few speak of Google.
pub(super) fn title(text: &mut String, number: u64) {
    let bits = mix(number ^ 0x7f4a);
    if bits.is_multiple_of(900) {
        text.push_str("Google - ");
    }
    for place in 0..3 + bits % 8 {
        if place > 0 {
            text.push(' ');
        }
        word(text, mix(bits.wrapping_add(place)) % WORDS);
    }
}

/// The address of a page of a site; a few speak of google.
pub(super) fn address(text: &mut String, site: u64, page: u64) {
    let bits = mix(site.rotate_left(32) ^ page);
    text.push_str(if site.is_multiple_of(7) { "https://" } else { "http://" });
    if site.is_multiple_of(3) {
        text.push_str("www.");
    }
    syllables(text, &LATIN, site, 4);
    text.push_str(if site.is_multiple_of(5) { ".com/" } else { ".ru/" });
    if bits.is_multiple_of(4_000) {
        text.push_str("google/");
    }
    for place in 0..1 + bits % 3 {
        syllables(text, &LATIN, bits.wrapping_add(place), 4);
        text.push('/');
    }
    // Never fails: it is written to memory.
    let _ = write!(text, "?id={page}");
}
