//! `round` of decimals, whose type stays what it was.
//!
//! DataFusion gives `round(d, 1)` one decimal place, if it sees the 1. Type coercion casts that to INTEGER, and until
//! the cast is folded it is no literal: what the result is compared with gets another type than
//! what it is compared with in the end (`sql-tests/upstream/type-of-round.md`). Here the places stay BIGINT,
//! as literals are, and are cast when the function runs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::functions::math::round::RoundFunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

/// The function, in the place of DataFusion's.
pub(crate) fn round() -> Arc<ScalarUDF> {
    let inner = ScalarUDF::new_from_impl(RoundFunc::new());
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Round { inner, signature }))
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Round {
    inner: ScalarUDF,
    signature: Signature,
}

impl ScalarUDFImpl for Round {
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let named = |data_type: &DataType| Arc::new(Field::new("", data_type.clone(), true));
        let fields: Vec<FieldRef> = types.iter().map(named).collect();
        let fields = fields_with_udf(&fields, &self.inner)?;
        let mut types: Vec<_> = fields.iter().map(|field| field.data_type().clone()).collect();
        if let Some(places) = types.get_mut(1) {
            *places = DataType::Int64;
        }
        Ok(types)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(places) = args.args.get_mut(1)
            && let Some(field) = args.arg_fields.get_mut(1)
        {
            *places = places.cast_to(&DataType::Int32, None)?;
            *field = Arc::new(Field::clone(field).with_data_type(DataType::Int32));
        }
        self.inner.invoke_with_args(args)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type of round depends on its arguments")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
