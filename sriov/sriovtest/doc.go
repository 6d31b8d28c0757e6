// Package sriovtest plays machines with NICs: a sysfs in a directory, a devlink, and a
// kernel that refuses what a kernel refuses. Input: what the machine has, by its own
// description or one of the shapes that public listings show. Output: what package
// sriov is given instead of the real ones.
package sriovtest
