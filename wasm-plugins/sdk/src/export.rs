//! The functions that the box calls.

/// Makes a plugin of this crate: `export!(Name);`, once, where `Name` is a [`Plugin`](crate::Plugin).
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        // Elsewhere it is of use to tests only, which is no reason to warn of it.
        #[cfg(not(target_family = "wasm"))]
        const _: fn($crate::running::Running<$plugin>) = |running| drop(running);

        #[cfg(target_family = "wasm")]
        const _: () = {
            use ::std::sync::OnceLock;
            use $crate::abi::{self, Answer, Text};
            use $crate::running::Running;

            static RUNNING: OnceLock<Running<$plugin>> = OnceLock::new();

            #[unsafe(link_section = "component-type:tidegate:rule@1.0.0:rule")]
            #[used]
            static CONTRACT: [u8; abi::COMPONENT_TYPE.len()] = abi::COMPONENT_TYPE;

            #[unsafe(export_name = "cabi_realloc")]
            unsafe extern "C" fn realloc(
                old: *mut u8,
                old_size: usize,
                align: usize,
                size: usize,
            ) -> *mut u8 {
                unsafe { abi::realloc(old, old_size, align, size) }
            }

            #[unsafe(export_name = "config-schema")]
            extern "C" fn config_schema() -> *mut Text {
                abi::config_schema::<$plugin>()
            }

            #[unsafe(export_name = "cabi_post_config-schema")]
            unsafe extern "C" fn forget_text(text: *mut Text) {
                unsafe { abi::forget_text(text) }
            }

            #[unsafe(export_name = "configure")]
            unsafe extern "C" fn configure(
                config: *mut u8,
                config_len: usize,
                inputs: *mut u8,
                inputs_len: usize,
                targets: *mut u8,
                targets_len: usize,
            ) -> *mut Answer {
                let lists = [(config, config_len), (inputs, inputs_len), (targets, targets_len)];
                unsafe { abi::configure(&RUNNING, lists) }
            }

            #[unsafe(export_name = "on-batch")]
            unsafe extern "C" fn on_batch(
                input: u32,
                rows: u32,
                columns: *mut u8,
                len: usize,
            ) -> *mut Answer {
                unsafe { abi::on_batch(&RUNNING, input, rows, (columns, len)) }
            }

            #[unsafe(export_name = "on-timer")]
            unsafe extern "C" fn on_timer(tag: *mut u8, len: usize) -> *mut Answer {
                unsafe { abi::on_timer(&RUNNING, (tag, len)) }
            }

            #[unsafe(export_name = "cabi_post_configure")]
            unsafe extern "C" fn forget_configure(answer: *mut Answer) {
                unsafe { abi::forget(answer) }
            }

            #[unsafe(export_name = "cabi_post_on-batch")]
            unsafe extern "C" fn forget_on_batch(answer: *mut Answer) {
                unsafe { abi::forget(answer) }
            }

            #[unsafe(export_name = "cabi_post_on-timer")]
            unsafe extern "C" fn forget_on_timer(answer: *mut Answer) {
                unsafe { abi::forget(answer) }
            }
        };
    };
}
