// Package offload is where SR-IOV and hardware offload are proven, on kernels and
// devices that this machine has not: virtual machines, which bin/guest makes and
// runs (package guest of the lab's module).
//
//	suite (build tag guest) ──go test -c──> suite.test ──bin/guest run──> tests in a guest
//	                                                                         │ test2json
//	TestGuestDebian, TestGuestOwn <── each as a subtest, with its output ──────┘
//
// rig makes what the tests in the guest stand on. kernel.config and
// netdevsim-offload.patch make the own kernel; the patch is the one file of the
// repository under GPL-2.0. Performance is not shown here: an emulated processor
// executes, in software, what a real NIC would do.
package offload
