//! The serial ports of this machine, from what the kernel says in /sys: no library and no udev is needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::config::UsbConfig;

/// A port that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// such as `/dev/ttyUSB0`
    pub path: PathBuf,
    /// the bus that it is on: `usb`, `pnp`, `platform`
    pub bus: String,
    /// of a USB adapter
    #[serde(flatten)]
    pub usb: Option<Adapter>,
    /// A path that stays the same when the adapter is moved to another socket.
    pub by_id: Option<PathBuf>,
}

/// What a USB adapter says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Adapter {
    /// vendor id
    pub vendor: u16,
    /// product id
    pub product: u16,
    /// serial number
    pub serial: Option<String>,
    /// which of its interfaces the port is
    pub interface: Option<u8>,
    /// maker and model in words
    pub name: String,
}

impl Adapter {
    /// Whether it is the one that is meant.
    #[must_use]
    pub fn is(&self, wanted: &UsbConfig) -> bool {
        (self.vendor, self.product) == (wanted.vendor, wanted.product)
            && wanted.serial.as_ref().is_none_or(|serial| self.serial.as_ref() == Some(serial))
            && wanted.interface.is_none_or(|interface| self.interface == Some(interface))
    }

    fn config(&self) -> UsbConfig {
        let Self { vendor, product, serial, interface, .. } = self;
        UsbConfig { vendor: *vendor, product: *product, serial: serial.clone(), interface: *interface }
    }
}

/// The ports of this machine, by name.
#[must_use]
pub fn list() -> Vec<Found> {
    list_in(Path::new("/"))
}

/// Where the adapter is plugged in.
///
/// # Errors
/// In words for the user, when it is not there, or when several adapters are meant.
pub(super) fn find(wanted: &UsbConfig) -> Result<PathBuf, String> {
    choose(list(), wanted)
}

fn choose(ports: Vec<Found>, wanted: &UsbConfig) -> Result<PathBuf, String> {
    let adapters = ports.into_iter().filter_map(|port| Some((port.path, port.usb?)));
    let (fits, others): (Vec<_>, Vec<_>) = adapters.partition(|(_, adapter)| adapter.is(wanted));
    let named = |ports: &[(PathBuf, Adapter)]| {
        let one = |(path, adapter): &(PathBuf, Adapter)| format!("{} ({})", adapter.config(), path.display());
        ports.iter().map(one).collect::<Vec<_>>().join("; ")
    };
    match fits.as_slice() {
        [(path, _)] => Ok(path.clone()),
        [] if others.is_empty() => {
            Err(format!("the USB adapter {wanted} is not plugged in, and no other one is"))
        }
        [] => Err(format!("the USB adapter {wanted} is not plugged in; there are: {}", named(&others))),
        several => Err(format!(
            "several ports are the USB adapter {wanted}: {}; add `serial` or `interface` to `usb`",
            named(several)
        )),
    }
}

fn list_in(root: &Path) -> Vec<Found> {
    let mut by_id = BTreeMap::new();
    for link in entries(&root.join("dev/serial/by-id")) {
        if let Ok(port) = link.canonicalize() {
            by_id.insert(port, link);
        }
    }
    let mut ports: Vec<_> = entries(&root.join("sys/class/tty"))
        .into_iter()
        .filter_map(|class| {
            // Consoles and ptys have no device.
            let device = class.join("device").canonicalize().ok()?;
            let bus = device.join("subsystem").canonicalize().ok()?;
            let bus = bus.file_name()?.to_string_lossy().into_owned();
            // Sockets of a UART that is not there have the type 0 (PORT_UNKNOWN).
            if read(&class, "type").as_deref() == Some("0") {
                return None;
            }
            let path = root.join("dev").join(class.file_name()?);
            let usb = device.ancestors().find_map(adapter).map(|adapter| Adapter {
                interface: device
                    .ancestors()
                    .find_map(|folder| read(folder, "bInterfaceNumber"))
                    .and_then(|number| u8::from_str_radix(&number, 16).ok()),
                ..adapter
            });
            let bus = if bus == "usb-serial" { "usb".to_owned() } else { bus };
            let by_id = by_id.get(&path.canonicalize().unwrap_or_else(|_| path.clone())).cloned();
            Some(Found { path, bus, usb, by_id })
        })
        .collect();
    ports.sort_by(|a, b| a.path.cmp(&b.path));
    ports
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn read(folder: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join(name)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn adapter(folder: &Path) -> Option<Adapter> {
    let id = |name| u16::from_str_radix(&read(folder, name)?, 16).ok();
    let names = ["manufacturer", "product"].map(|name| read(folder, name));
    Some(Adapter {
        vendor: id("idVendor")?,
        product: id("idProduct")?,
        serial: read(folder, "serial"),
        interface: None,
        name: names.into_iter().flatten().collect::<Vec<_>>().join(" "),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    /// What a kernel shows of two FTDI adapters, a UART, a socket without one, and a pty, as
    /// Documentation/ABI/testing/sysfs-bus-usb and sysfs-tty have it.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let file = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        let link = |path: &str, target: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::create_dir_all(at(target)).unwrap();
            symlink(at(target), at(path)).unwrap();
        };
        for (n, serial) in [(0, "A1"), (1, "B2")] {
            let usb = format!("sys/devices/usb1/1-{n}");
            file(&format!("{usb}/idVendor"), "0403\n");
            file(&format!("{usb}/idProduct"), "6001\n");
            file(&format!("{usb}/serial"), serial);
            file(&format!("{usb}/manufacturer"), "FTDI\n");
            file(&format!("{usb}/product"), "FT232R USB UART\n");
            file(&format!("{usb}/1-{n}:1.0/bInterfaceNumber"), "00\n");
            let device = format!("{usb}/1-{n}:1.0/ttyUSB{n}");
            link(&format!("sys/class/tty/ttyUSB{n}/device"), &device);
            link(&format!("{device}/subsystem"), "sys/bus/usb-serial");
            file(&format!("dev/ttyUSB{n}"), "");
        }
        fs::create_dir_all(at("dev/serial/by-id")).unwrap();
        symlink(at("dev/ttyUSB1"), at("dev/serial/by-id/usb-FTDI_B2-if00-port0")).unwrap();
        for (name, kind) in [("ttyS0", "4"), ("ttyS1", "0")] {
            link(&format!("sys/class/tty/{name}/device"), "sys/devices/pnp0/00:01");
            file(&format!("sys/class/tty/{name}/type"), kind);
        }
        link("sys/devices/pnp0/00:01/subsystem", "sys/bus/pnp");
        fs::create_dir_all(at("sys/class/tty/tty0")).unwrap();
        root
    }

    #[test]
    fn ports_are_found_with_what_their_adapters_say() {
        let root = tree();
        let found = list_in(root.path());
        let names: Vec<_> =
            found.iter().map(|port| port.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["ttyS0", "ttyUSB0", "ttyUSB1"]);
        let usb = found[2].usb.clone().unwrap();
        assert_eq!((usb.vendor, usb.product, usb.serial.as_deref()), (0x0403, 0x6001, Some("B2")));
        assert_eq!((usb.name.as_str(), usb.interface), ("FTDI FT232R USB UART", Some(0)));
        assert_eq!((found[0].bus.as_str(), found[2].bus.as_str()), ("pnp", "usb"));
        assert!(found[2].by_id.as_ref().unwrap().ends_with("usb-FTDI_B2-if00-port0"));
        assert_eq!(found[1].by_id, None);
    }

    #[test]
    fn the_adapter_that_is_meant_is_the_only_one() {
        let root = tree();
        let find = |config: UsbConfig| choose(list_in(root.path()), &config);
        let ftdi = || UsbConfig { vendor: 0x0403, product: 0x6001, ..UsbConfig::default() };
        let path = find(UsbConfig { serial: Some("B2".into()), ..ftdi() }).unwrap();
        assert_eq!(path, root.path().join("dev/ttyUSB1"));
        let error = find(ftdi()).unwrap_err();
        assert!(error.contains("several") && error.contains("serial number A1"), "{error}");
        let error = find(UsbConfig { serial: Some("C3".into()), ..ftdi() }).unwrap_err();
        assert!(error.contains("not plugged in; there are: 0403:6001 with serial number A1"), "{error}");
        let error = choose(Vec::new(), &ftdi()).unwrap_err();
        assert!(error.contains("no other one"), "{error}");
    }
}
