//! Conversions between units, by their definitions: the international inch, pound and foot, standard gravity,
//! the US gallon, the mechanical horsepower.

use rhai::Engine;

use super::Named;

const POUND: f64 = 0.453_592_37;
const FOOT: f64 = 0.3048;
const GALLON: f64 = 3.785_411_784;
/// a pound under standard gravity on a square inch, in pascal
const PSI: f64 = POUND * 9.806_65 / (0.0254 * 0.0254);
/// 550 feet times a pound under standard gravity a second, in kilowatt
const HORSEPOWER: f64 = 550.0 * FOOT * POUND * 9.806_65 / 1_000.0;
const RAD_PER_TURN: f64 = std::f64::consts::TAU;

/// Each of them.
const CONVERSIONS: [Named; 28] = [
    ("c_to_f", |x| x * 1.8 + 32.0),
    ("f_to_c", |x| (x - 32.0) / 1.8),
    ("c_to_k", |x| x + 273.15),
    ("k_to_c", |x| x - 273.15),
    ("bar_to_psi", |x| x * 100_000.0 / PSI),
    ("psi_to_bar", |x| x * PSI / 100_000.0),
    ("bar_to_kpa", |x| x * 100.0),
    ("kpa_to_bar", |x| x / 100.0),
    ("kpa_to_psi", |x| x * 1_000.0 / PSI),
    ("psi_to_kpa", |x| x * PSI / 1_000.0),
    ("m3_h_to_l_min", |x| x * 1_000.0 / 60.0),
    ("l_min_to_m3_h", |x| x * 60.0 / 1_000.0),
    ("gal_min_to_l_min", |x| x * GALLON),
    ("l_min_to_gal_min", |x| x / GALLON),
    ("l_to_gal", |x| x / GALLON),
    ("gal_to_l", |x| x * GALLON),
    ("mm_to_inch", |x| x / 25.4),
    ("inch_to_mm", |x| x * 25.4),
    ("m_to_ft", |x| x / FOOT),
    ("ft_to_m", |x| x * FOOT),
    ("kg_to_lb", |x| x / POUND),
    ("lb_to_kg", |x| x * POUND),
    ("kw_to_hp", |x| x / HORSEPOWER),
    ("hp_to_kw", |x| x * HORSEPOWER),
    ("km_h_to_m_s", |x| x / 3.6),
    ("m_s_to_km_h", |x| x * 3.6),
    ("rpm_to_rad_s", |x| x * RAD_PER_TURN / 60.0),
    ("rad_s_to_rpm", |x| x * 60.0 / RAD_PER_TURN),
];

pub(super) fn register(engine: &mut Engine) {
    for (name, convert) in CONVERSIONS {
        engine.register_fn(name, convert);
        engine.register_fn(name, move |x: i64| convert(x as f64));
    }
}
