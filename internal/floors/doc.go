// SPDX-License-Identifier: Apache-2.0

// Package floors holds the house together: its tests say which room may import
// which, with reasons, and that agent/policy stays a function.
//
// The floors, top to bottom, and the rooms on each are in floors_test.go;
// imports run down only, and neighbours on one floor do not import each other.
// What a whole program may depend on is a table beside it. A room that does not
// exist yet is already in the tables, so that it is born on its floor.
//
// The package has no code and nothing imports it. Tests of the rooms may import
// upwards, for a test often needs a caller; they are not held to the tables.
package floors
