# make the key for encryption at rest
set -eu
file=/etc/kubernetes/kuryrctl/encryption.yaml
if [ -s "$file" ]; then exit 0; fi
umask 077
mkdir -p /etc/kubernetes/kuryrctl
cat >"$file.new" <<END
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: first
        secret: $(head -c 32 /dev/urandom | base64)
  - identity: {}
END
sync "$file.new"
mv "$file.new" "$file"
