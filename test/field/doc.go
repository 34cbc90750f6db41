// Package field has an input for each kind of fault that people in the field
// have met, with this software's neighbours or with itself: what comes in by
// configuration, environment, files and IPAM, and leaves by results. Each test
// is named after what it is about; the comment has the report's number.
package field
