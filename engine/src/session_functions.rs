//! Functions that tell a session about itself: `current_schema()`, `current_database()`.
//!
//! Invariant: a call is replaced by its value when the statement is planned, so no worker ever
//! needs to know the session.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use crate::settings::Settings;
use crate::snapshot::CATALOG;

/// The functions, with the values that a session gives them.
pub(crate) fn session_functions(settings: &Settings) -> Vec<Arc<ScalarUDF>> {
    let schema = settings.search_path.first().cloned();
    let catalog = || Some(CATALOG.to_owned());
    let functions = [
        ("current_schema", schema),
        ("current_database", catalog()),
        ("current_catalog", catalog()),
    ];
    let constant = |(name, value)| {
        let signature = Signature::exact(vec![], Volatility::Stable);
        Arc::new(ScalarUDF::new_from_impl(Constant { name, value, signature }))
    };
    functions.into_iter().map(constant).collect()
}

/// A function without arguments that has one value in a session.
#[derive(Debug)]
struct Constant {
    name: &'static str,
    value: Option<String>,
    signature: Signature,
}

impl Constant {
    fn scalar(&self) -> ScalarValue {
        ScalarValue::Utf8View(self.value.clone())
    }
}

impl PartialEq for Constant {
    fn eq(&self, other: &Self) -> bool {
        (self.name, &self.value) == (other.name, &other.value)
    }
}

impl Eq for Constant {}

impl Hash for Constant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name, &self.value).hash(state);
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn simplify(&self, _: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(lit(self.scalar())))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.scalar()))
    }
}
