//! What a name in a statement means: streams and functions.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use tidegate_core::diagnostic::did_you_mean;

use super::as_of::Versions;
use super::functions::{EPOCHS, Epoch, memories};
use super::growth::bounded;
use super::json::{self, JsonOperators};
use super::lower::types::Meetings;
use super::mismatch::Operands;
use super::pattern::RowPatterns;
use super::pattern::formula::markers;
use super::table_functions::WindowFunctions;
use super::wall_clock::WallClock;
use crate::Catalog;

/// A stream or a reference table as DataFusion's planner sees it.
#[derive(Debug)]
pub(super) struct StreamSource {
    pub name: Arc<str>,
    /// whether it is a reference table
    pub is_table: bool,
    schema: SchemaRef,
}

impl TableSource for StreamSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
    window: HashMap<String, Arc<WindowUDF>>,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    options: ConfigOptions,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut scalar = HashMap::new();
    for udf in datafusion_functions::all_default_functions()
        .into_iter()
        .chain(datafusion_functions_nested::all_default_nested_functions())
        .map(bounded)
    {
        for alias in udf.aliases() {
            scalar.insert(alias.clone(), Arc::clone(&udf));
        }
        scalar.insert(udf.name().to_owned(), udf);
    }
    scalar.extend(json::functions().into_iter().chain(markers()).map(|udf| (udf.name().to_owned(), udf)));
    for name in EPOCHS {
        if let Some(udf) = scalar.get(name).cloned() {
            scalar.insert(name.to_owned(), Arc::new(ScalarUDF::from(Epoch(udf))));
        }
    }
    let mut aggregate = HashMap::new();
    for udaf in datafusion_functions_aggregate::all_default_aggregate_functions() {
        for alias in udaf.aliases() {
            aggregate.insert(alias.clone(), Arc::clone(&udaf));
        }
        aggregate.insert(udaf.name().to_owned(), udaf);
    }
    let window = datafusion_functions_window::all_default_window_functions().into_iter().chain(memories());
    let window = window.map(|udwf| (udwf.name().to_owned(), udwf)).collect();
    let expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![
        Arc::new(Meetings),
        Arc::new(JsonOperators),
        Arc::new(Operands),
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion_functions_nested::planner::NestedFunctionPlanner),
        Arc::new(datafusion_functions_nested::planner::FieldAccessPlanner),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
        Arc::new(datafusion_functions_window::planner::WindowFunctionPlanner),
    ];
    Functions {
        scalar,
        aggregate,
        window,
        expr_planners,
        relation_planners: vec![Arc::new(Versions), Arc::new(WindowFunctions), Arc::new(RowPatterns)],
        options: ConfigOptions::default(),
    }
});

/// The names that one rule may use.
pub(super) struct Names<'a> {
    pub catalog: &'a Catalog,
    /// what `now()` looks the time up in
    pub clock: WallClock,
    waiting: Mutex<BTreeSet<String>>,
    warnings: Mutex<Vec<DataFusionError>>,
    /// views of the file that are wrong, and whether a statement has asked for one since the last time
    wrong_views: Mutex<(BTreeSet<String>, bool)>,
    has_windows: AtomicBool,
}

impl<'a> Names<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            clock: WallClock::default(),
            waiting: Mutex::default(),
            warnings: Mutex::default(),
            wrong_views: Mutex::default(),
            has_windows: AtomicBool::new(false),
        }
    }

    /// A statement of the file has a window.
    pub(super) fn note_window(&self) {
        self.has_windows.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_windows(&self) -> bool {
        self.has_windows.load(Ordering::Relaxed)
    }

    /// The view `name` is wrong, which was said: statements that read it have no fault of their own.
    pub(super) fn view_is_wrong(&self, name: String) {
        self.wrong_views.lock().unwrap_or_else(PoisonError::into_inner).0.insert(name);
    }

    /// Whether a view that is wrong has been asked for since the last time.
    pub(super) fn take_wrong_view_asked(&self) -> bool {
        std::mem::take(&mut self.wrong_views.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// The statement is taken, but `what` is probably not meant: told like an error, with advice behind the
    /// first `"; "`.
    pub(super) fn warn(&self, what: DataFusionError) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// What has been warned of since the last time.
    pub(super) fn take_warnings(&self) -> Vec<DataFusionError> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Streams that were read although their columns are not known yet.
    pub(super) fn waiting(&self) -> Vec<String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

pub(super) fn options() -> &'static ConfigOptions {
    &FUNCTIONS.options
}

/// Whether `name` is a function of one row, and nothing else.
pub(super) fn is_scalar_only(name: &str) -> bool {
    is_scalar(name) && !FUNCTIONS.aggregate.contains_key(name) && !FUNCTIONS.window.contains_key(name)
}

fn is_scalar(name: &str) -> bool {
    FUNCTIONS.scalar.contains_key(name)
}

/// Whether `name` is a function that stands with OVER only.
pub(super) fn is_window(name: &str) -> bool {
    FUNCTIONS.window.contains_key(name) && !FUNCTIONS.aggregate.contains_key(name) && !is_scalar(name)
}

/// Whether `name` is a function of many rows, and nothing else.
pub(super) fn is_aggregate(name: &str) -> bool {
    FUNCTIONS.aggregate.contains_key(name) && !is_scalar(name)
}

/// The names of all functions.
pub(super) fn functions() -> Vec<String> {
    FUNCTIONS
        .scalar
        .keys()
        .chain(FUNCTIONS.aggregate.keys())
        .chain(FUNCTIONS.window.keys())
        .cloned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let stream = name.table();
        if name.schema().is_some() {
            return plan_err!("`{name}` has more than one part; streams have plain names");
        }
        let table = self.catalog.tables.get(stream);
        let schema = match (self.catalog.inputs.get(stream).or(table), self.catalog.derived.get(stream)) {
            (Some(Some(schema)), _) | (_, Some(schema)) => schema,
            (Some(None), _) => {
                self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.to_owned());
                return plan_err!("the columns of `{stream}` are not known yet");
            }
            (None, None) => {
                let mut wrong_views = self.wrong_views.lock().unwrap_or_else(PoisonError::into_inner);
                wrong_views.1 |= wrong_views.0.contains(stream);
                let known: Vec<&str> = self.catalog.readable().collect();
                let help = did_you_mean(stream, &known).map(|help| format!("; {help}")).unwrap_or_default();
                let what = if self.catalog.outputs.contains_key(stream) {
                    "is an output, and outputs cannot be read"
                } else {
                    "is not a stream"
                };
                return plan_err!("`{stream}` {what}{help}");
            }
        };
        Ok(Arc::new(StreamSource {
            name: Arc::from(stream),
            is_table: table.is_some(),
            schema: Arc::clone(schema),
        }))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &FUNCTIONS.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &FUNCTIONS.relation_planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.clock.function(name).or_else(|| FUNCTIONS.scalar.get(name).cloned())
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        FUNCTIONS.aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        FUNCTIONS.window.get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        options()
    }

    fn udf_names(&self) -> Vec<String> {
        FUNCTIONS.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        FUNCTIONS.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        FUNCTIONS.window.keys().cloned().collect()
    }
}
