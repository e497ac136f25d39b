//! Why a record is not as expected, as one of few words: what an allow-list groups by.

use std::fmt;

use super::engine::EngineError;

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The kind of reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Class { $($(#[$doc])* $variant,)* }

        impl Class {
            const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in allow-lists.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

classes! {
    /// Other rows than the file has.
    WrongResult = "wrong-result",
    /// Other columns than the letters of the record.
    WrongColumns = "wrong-columns",
    /// Another number of affected rows.
    WrongCount = "wrong-count",
    /// It was to fail and did not.
    NoError = "no-error",
    /// It failed, but for another reason than the file names.
    OtherError = "other-error",
    /// Text that does not parse.
    Syntax = "syntax",
    /// A function that the engine does not have.
    UnsupportedFunction = "unsupported-function",
    /// A statement or clause that the engine does not have.
    Unsupported = "unsupported",
    /// Types that do not go together, values that cannot be cast.
    Type = "type",
    /// A table that is not there, often because of an earlier record.
    MissingTable = "missing-table",
    /// A column that is not there.
    MissingColumn = "missing-column",
    /// A number out of its range, or a division by zero.
    Arithmetic = "arithmetic",
    /// Two columns of one name, and names that fit two columns.
    DuplicateName = "duplicate-name",
    /// Something that is there already.
    Duplicate = "duplicate",
    /// Memory, disk or time ran out.
    Resources = "resources",
    /// The engine is gone.
    Connection = "connection",
    /// The engine blames itself.
    Internal = "internal",
    /// A failure that none of the others tells.
    Failed = "failed",
}

/// Words of messages, most telling first, for engines without SQLSTATEs.
const WORDS: [(&str, Class); 36] = [
    ("panicked", Class::Internal),
    ("internal error", Class::Internal),
    ("recursionlimitexceeded", Class::Resources),
    ("unique expression names", Class::DuplicateName),
    ("ambiguous", Class::DuplicateName),
    ("duplicate unqualified field", Class::DuplicateName),
    ("invalid function", Class::UnsupportedFunction),
    ("unknown function", Class::UnsupportedFunction),
    ("no function matches", Class::Type),
    ("scalar function with name", Class::UnsupportedFunction),
    ("unsupported sql type", Class::Unsupported),
    ("parsererror", Class::Syntax),
    ("tokenizererror", Class::Syntax),
    ("parser error", Class::Syntax),
    ("syntax", Class::Syntax),
    ("not implemented", Class::Unsupported),
    ("unsupported", Class::Unsupported),
    ("not supported", Class::Unsupported),
    ("no field named", Class::MissingColumn),
    ("column with name", Class::MissingColumn),
    ("referenced column", Class::MissingColumn),
    ("already exists", Class::Duplicate),
    ("divide by zero", Class::Arithmetic),
    ("division by zero", Class::Arithmetic),
    ("overflow", Class::Arithmetic),
    ("out of range", Class::Arithmetic),
    ("resources exhausted", Class::Resources),
    ("out of memory", Class::Resources),
    ("cast", Class::Type),
    ("coerce", Class::Type),
    ("coercion", Class::Type),
    ("type mismatch", Class::Type),
    ("common type", Class::Type),
    ("not found", Class::MissingTable),
    ("doesn't exist", Class::MissingTable),
    ("does not exist", Class::MissingTable),
];

impl Class {
    /// The class of an error.
    pub fn of(error: &EngineError) -> Self {
        if error.is_disconnect {
            return Self::Connection;
        }
        let by_state = match error.sqlstate.as_deref() {
            Some("42601") => Some(Self::Syntax),
            Some("42883") => Some(Self::UnsupportedFunction),
            Some("0A000") => Some(Self::Unsupported),
            Some("42P01" | "3F000") => Some(Self::MissingTable),
            Some("42703") => Some(Self::MissingColumn),
            Some("42804" | "22P02" | "22000") => Some(Self::Type),
            Some("22003" | "22012") => Some(Self::Arithmetic),
            Some("42P07" | "42P06") => Some(Self::Duplicate),
            Some("53200" | "57014") => Some(Self::Resources),
            Some("XX000") => Some(Self::Internal),
            _ => None,
        };
        by_state.unwrap_or_else(|| Self::of_message(&error.message))
    }

    /// The class that the words of a message tell.
    pub(super) fn of_message(message: &str) -> Self {
        let message = message.to_lowercase();
        WORDS
            .iter()
            .find(|(word, _)| message.contains(word))
            .map_or(Self::Failed, |(_, class)| *class)
    }

    /// The class of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| class.name() == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, expected: Class) {
        assert_eq!(Class::of(&EngineError::new(message)), expected, "{message}");
    }

    #[test]
    fn messages_of_datafusion_are_told_apart() {
        check("SQL error: ParserError(\"Expected: end of statement\")", Class::Syntax);
        check("Error during planning: Invalid function 'total'.", Class::UnsupportedFunction);
        check("This feature is not implemented: CREATE INDEX", Class::Unsupported);
        check("Error during planning: table 'a.b.c' not found", Class::MissingTable);
        check("Schema error: No field named x.", Class::MissingColumn);
        check("Arrow error: Divide by zero error", Class::Arithmetic);
        check("Arrow error: Cast error: Cannot cast string 'a'", Class::Type);
        check("Projections require unique expression names but ...", Class::DuplicateName);
        check("SQL error: RecursionLimitExceeded (current limit: 50)", Class::Resources);
        check("whatever", Class::Failed);
    }

    #[test]
    fn a_sqlstate_tells_more_than_words() {
        let mut error = EngineError::new("syntax");
        error.sqlstate = Some("42883".to_owned());
        assert_eq!(Class::of(&error), Class::UnsupportedFunction);
        error.is_disconnect = true;
        assert_eq!(Class::of(&error), Class::Connection);
    }

    #[test]
    fn every_class_is_read_back_by_its_name() {
        for class in Class::ALL {
            assert_eq!(Class::parse(class.name()), Some(*class));
        }
        assert_eq!(Class::parse("nonsense"), None);
    }
}
