//! demo
#![allow(dead_code)]
mod broker;
mod cloud;
mod devices;
mod folder;
mod plant;
