package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// What Blocks says of a slot.
var (
	ErrBlockTaken = errors.New("another node has the block")
	ErrBlockGone  = errors.New("the block does not exist")
)

// Blocks writes AddressBlocks. The API server is the arbiter: a slot's object has one
// name, and what is changed is written only if it is still as it was read.
type Blocks struct{ client dynamic.ResourceInterface }

// BlockResource names the resource.
func BlockResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "addressblocks"}
}

// NewBlocks takes them from a client of any resources.
func NewBlocks(client dynamic.Interface) Blocks { return Blocks{client.Resource(BlockResource())} }

// ConnectBlocks makes a client of addressblocks. It does not touch the network.
func (c ClientConfig) ConnectBlocks() (Blocks, error) {
	cfg, err := c.restConfig()
	if err != nil {
		return Blocks{}, err
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return Blocks{}, err
	}
	return NewBlocks(client), nil
}

func blockName(network string, slot int) string {
	return fmt.Sprintf("%s.%d", v1alpha1.NetworkObjectName(network), slot)
}

// Make makes a block. A slot that has one gives ErrBlockTaken, but where it is the
// same node's and without entries: an earlier attempt of which nobody heard.
func (b Blocks) Make(ctx context.Context, block *intent.Block) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	u, err := unstructuredBlock(&v1alpha1.AddressBlock{
		ObjectMeta: metav1.ObjectMeta{Name: blockName(block.Network, block.Slot)}, Spec: FormatBlock(block),
	})
	if err != nil {
		return err
	}
	_, err = b.client.Create(ctx, u, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	have, _, err := b.read(ctx, block.Network, block.Slot)
	if err != nil {
		return err
	}
	if have.Network == block.Network && have.Node == block.Node && len(have.Entries) == 0 {
		return nil
	}
	return ErrBlockTaken
}

// Change changes a block; see Blocks.
func (b Blocks) Change(ctx context.Context, network string, slot int, change func(*intent.Block) error) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		block, object, err := b.read(ctx, network, slot)
		if err != nil {
			return err
		}
		if err := change(block); err != nil {
			return err
		}
		object.Spec = FormatBlock(block)
		u, err := unstructuredBlock(object)
		if err != nil {
			return err
		}
		_, err = b.client.Update(ctx, u, metav1.UpdateOptions{})
		return err
	})
}

// Remove removes a block if gone says so of what it is, and it is that still.
func (b Blocks) Remove(ctx context.Context, network string, slot int, gone func(*intent.Block) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		block, object, err := b.read(ctx, network, slot)
		if errors.Is(err, ErrBlockGone) {
			return nil
		}
		if err != nil || !gone(block) {
			return err
		}
		err = b.client.Delete(ctx, object.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &object.UID, ResourceVersion: &object.ResourceVersion},
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (b Blocks) read(ctx context.Context, network string, slot int) (*intent.Block, *v1alpha1.AddressBlock, error) {
	u, err := b.client.Get(ctx, blockName(network, slot), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil, ErrBlockGone
	}
	if err != nil {
		return nil, nil, err
	}
	object := &v1alpha1.AddressBlock{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, object); err != nil {
		return nil, nil, fmt.Errorf("AddressBlock %s: %w", u.GetName(), err)
	}
	block, problems := ParseBlock(object)
	if len(problems) > 0 {
		return nil, nil, fmt.Errorf("AddressBlock %s: %s: %s; correct it or delete it", object.Name, problems[0].Field, problems[0].Message)
	}
	return block, object, nil
}

func unstructuredBlock(o *v1alpha1.AddressBlock) (*unstructured.Unstructured, error) {
	o.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.Group + "/" + v1alpha1.Version, Kind: v1alpha1.KindAddressBlock}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	return &unstructured.Unstructured{Object: m}, nil
}
