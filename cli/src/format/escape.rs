//! Control characters as escapes: a value can neither break the table nor drive the terminal.

/// The text on one line, its control characters written as `\n`, `\u{1b}` and the like.
pub(super) fn escaped(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut shown, letter| {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
        shown
    })
}
