package lambda

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// The architectures of images and, where the service tells it, of instance types.
const (
	ArchX86 = "x86_64"
	ArchARM = "arm64"
)

// Image is a machine image. There is one for each region and architecture.
type Image struct {
	ID           string    `json:"id"`
	CreatedTime  time.Time `json:"created_time"` // zero when the service's text is not a time
	UpdatedTime  time.Time `json:"updated_time"`
	Name         string    `json:"name"`
	Description  string    `json:"description"`
	Family       string    `json:"family"` // what [ImageRef] can name, such as "lambda-stack-24-04"
	Version      string    `json:"version"`
	Architecture string    `json:"architecture"` // [ArchX86] or [ArchARM]
	Region       Region    `json:"region"`
}

// UnmarshalJSON takes times without a zone too.
func (i *Image) UnmarshalJSON(b []byte) error {
	type plain Image
	in := struct {
		*plain
		CreatedTime looseTime `json:"created_time"`
		UpdatedTime looseTime `json:"updated_time"`
	}{plain: (*plain)(i)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	i.CreatedTime, i.UpdatedTime = in.CreatedTime.t, in.UpdatedTime.t
	return nil
}

// ImageRef names an image by its id, or by its family for the newest of it. The zero value is the service's default, which
// differs between regions.
type ImageRef struct {
	ID     string `json:"id,omitempty"`
	Family string `json:"family,omitempty"`
}

// Images lists the images that can be launched.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	return list[Image](ctx, c, call{op: OpImages, method: http.MethodGet, path: "/images", safe: true}, nil)
}
