// SPDX-License-Identifier: Apache-2.0

// Package resources makes Envoy's configuration from the agent's configuration
// and the bundle's catalogue, so that what is governed and what Envoy does cannot
// drift apart.
//
//	bootstrap, err := resources.Bootstrap(resources.Input{Config: config, Catalogue: catalogue})
//	text, err := resources.YAML(bootstrap)
//
// What the package promises: there is no route to anything but the catalogue;
// every governed route has the filter that its enforcement names, and none fails
// open; nothing is retried that may have run; what the agent itself sends leaves
// by a unix socket without the filters. What it does not do: read files, run
// Envoy, or speak xDS.
package resources
